/** Signing up, over a real store. */
import { setImmediate as turn } from 'node:timers/promises';
import { Accounts, openDatabase } from '@instavm/store';
import { expect, it } from 'vitest';
import { SignIns } from '../src/sign-in/sign-ins.ts';

it('keeps nobody else waiting for the database while the password is hashed', async () => {
  const database = await openDatabase(':memory:');
  const accounts = new Accounts(database);
  const signIns = new SignIns(accounts, { database, secret: 's'.repeat(43), publicUrl: undefined });
  const signUp = (email: string) =>
    signIns.signUp({ email, name: 'E', password: 'long enough for a test' }, new Headers());
  // Loads the library.
  await signUp('first@example.com');
  let isDone = false;
  const signedUp = signUp('second@example.com').finally(() => {
    isDone = true;
  });
  let answers = 0;
  for (; !isDone; answers++) {
    await accounts.count();
    await turn();
  }
  expect(answers).toBeGreaterThan(20);
  const { account } = await signedUp;
  expect((await signIns.signIn(account.email, 'long enough for a test', new Headers())).account.id).toBe(account.id);
  await expect(signUp('second@example.com')).rejects.toMatchObject({ code: 'email_taken' });
  await database.destroy();
});
