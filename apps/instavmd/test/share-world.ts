/** Shares over a real store; sandboxes are records without a microVM. */
import {
  type AccountId,
  type SandboxId,
  type SandboxRecord,
  type SandboxState,
  Shares,
  systemClock,
} from '@instavm/core';
import type { PreviewTargets } from '@instavm/preview';
import {
  type Account,
  Accounts,
  ApiKeys,
  type Database,
  domainRecords,
  openDatabase,
  sandboxRecords,
  shareRecords,
} from '@instavm/store';
import { InstaVMError } from '@instavm/wire';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { buildApp, type Services } from '../src/app.ts';
import { KeyConnections } from '../src/key-connections.ts';
import { Metrics } from '../src/operations/metrics.ts';
import { type PreviewAddresses, type PreviewParts, previewTargets } from '../src/previews.ts';
import { PtyTokens } from '../src/pty-tokens.ts';
import { auditOf } from './audit-of.ts';
import { noLimits } from './no-limits.ts';
import { recordOf } from './sandbox-record.ts';

export const ADDRESSES: PreviewAddresses = {
  authority: { domain: 'preview.test', certPem: 'PEM' },
  urlOf: (id) => `https://${id}.preview.test:8443`,
  signedUrlOf: (id, link, expiresAt) => `https://${id}.preview.test:8443/?${link}=${expiresAt.toISOString()}`,
};
/** The id of no share. */
export const NOWHERE = 'shraaaaaaaaaaaaaaaaaaaa';

// biome-ignore lint/suspicious/noExplicitAny: answers are whatever the server sent; the tests look at them.
type Answer = { status: number; body: any };

export class ShareWorld {
  readonly database: Database;
  readonly accounts: Accounts;
  readonly shares: Shares;
  readonly account: Account;
  /** Of the account. */
  readonly key: string;
  readonly keyConnections = new KeyConnections();
  readonly #open: FastifyInstance[] = [];

  static async open(): Promise<ShareWorld> {
    const database = await openDatabase(':memory:');
    let key = '';
    const account = await new Accounts(database).createWithKey('a@b', 'A', 'first', (given) => {
      key = given;
    });
    return new ShareWorld(database, account, key);
  }

  private constructor(database: Database, account: Account, key: string) {
    this.database = database;
    this.account = account;
    this.key = key;
    this.accounts = new Accounts(database);
    this.shares = new Shares({
      shares: shareRecords(database),
      sandboxes: sandboxRecords(database),
      clock: systemClock,
    });
  }

  async close(): Promise<void> {
    this.keyConnections.stop();
    for (const app of this.#open) await app.close();
    await this.database.destroy();
  }

  async sandbox(state: SandboxState = 'running', accountId: AccountId = this.account.id): Promise<SandboxRecord> {
    const record = recordOf({ accountId, state });
    await sandboxRecords(this.database).insert(record);
    return record;
  }

  storedOf = async (id: SandboxId) => (await sandboxRecords(this.database).find(id)) as SandboxRecord;
  become = (id: SandboxId, state: SandboxState) => sandboxRecords(this.database).update(id, 1, { state });

  /** What the preview proxy is given. */
  targets(sandboxes: PreviewParts['sandboxes']): PreviewTargets {
    const { database, shares, keyConnections } = this;
    return previewTargets({
      ...{ sampler: { count: () => {} }, keyConnections, shares, sandboxes },
      ...{ keys: new ApiKeys(database), domains: domainRecords(database) },
    });
  }

  /** @returns how to ask, with the key of the account unless another one is given */
  async serve(addresses: PreviewAddresses | null = ADDRESSES) {
    const { database, accounts, shares, keyConnections } = this;
    const find = async (record: SandboxRecord | undefined, accountId: AccountId) => {
      if (record?.accountId !== accountId) throw new InstaVMError('sandbox_not_found', 'there is no such session');
      return { record };
    };
    const records = sandboxRecords(database);
    const sandboxes = {
      get: async (accountId: AccountId, id: SandboxId) => find(await records.find(id), accountId),
      getByIncarnation: async (accountId: AccountId, id: never) => find(await records.findByIncarnation(id), accountId),
    };
    const services = {
      ...{ egress: {}, egressLog: {}, egressJournal: {}, operations: { metrics: new Metrics() } },
      ...{ sandboxes, accounts, shares, keyConnections, keys: new ApiKeys(database) },
      ...{ people: {}, audit: auditOf(database), rateLimits: noLimits(), ptyTokens: new PtyTokens() },
      previews: addresses ?? undefined,
    };
    const app = await buildApp(services as unknown as Services, pino({ level: 'silent' }));
    this.#open.push(app);
    return async (method: 'GET' | 'POST' | 'PATCH' | 'DELETE', url: string, payload?: object, as = this.key) => {
      const options = { method, url, headers: { 'x-api-key': as }, ...(payload && { payload }) };
      const answer = await app.inject(options);
      return { status: answer.statusCode, body: answer.json() } as Answer;
    };
  }
}
