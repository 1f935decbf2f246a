/** Further accounts of a daemon that runs, made beside it in its database. */
import { join } from 'node:path';
import { Accounts, openDatabase } from '@instavm/store';
import type { TestDaemon } from '@instavm/testing';
import { type Api, apiOf } from './api.ts';

/** @returns the daemon as the owner of a new account sees it */
export async function asAnother(daemon: TestDaemon, email: string): Promise<Api> {
  const database = await openDatabase(join(daemon.dataDirectory, 'instavm.db'));
  try {
    let apiKey = '';
    await new Accounts(database).createWithKey(email, email, 'first', (key) => {
      apiKey = key;
    });
    return apiOf({ ...daemon, apiKey });
  } finally {
    await database.destroy();
  }
}
