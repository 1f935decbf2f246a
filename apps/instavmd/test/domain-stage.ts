/** Custom domains of one account over HTTP, in a world that does what a test says. */
import type { Domains, ShareRecord } from '@instavm/core';
import { ApiKeys } from '@instavm/store';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { expect, vi } from 'vitest';
import { buildApp, type Services } from '../src/app.ts';
import { KeyConnections } from '../src/key-connections.ts';
import { Metrics } from '../src/operations/metrics.ts';
import type { PreviewAddresses } from '../src/previews.ts';
import { PtyTokens } from '../src/pty-tokens.ts';
import { auditOf } from './audit-of.ts';
import { DomainWorld } from './domain-world.ts';
import { noLimits } from './no-limits.ts';

export const addresses = (port: string): PreviewAddresses => ({
  authority: undefined,
  urlOf: (id) => `https://${id}.preview.test${port}`,
  signedUrlOf: () => '',
});
export const NAME = 'app.example.com';
export const TXT = `_instavm-challenge.${NAME}`;

// biome-ignore lint/suspicious/noExplicitAny: answers are whatever the server sent; the tests look at them.
type Answer = { status: number; body: any };
export type Call = Awaited<ReturnType<DomainStage['serve']>>;

export class DomainStage {
  readonly world: DomainWorld;
  readonly owner: Awaited<ReturnType<DomainWorld['account']>>;
  readonly share: ShareRecord;
  /** Of the present daemon. */
  domains: Domains;
  readonly #open: FastifyInstance[] = [];

  static async open(): Promise<DomainStage> {
    const world = await DomainWorld.open();
    const owner = await world.account('a@b');
    return new DomainStage(world, owner, await world.share(owner.id));
  }

  private constructor(world: DomainWorld, owner: DomainStage['owner'], share: ShareRecord) {
    this.world = world;
    this.owner = owner;
    this.share = share;
    this.domains = world.start();
  }

  async close(): Promise<void> {
    for (const app of this.#open) await app.close();
    await this.domains.close();
    await this.world.database.destroy();
  }

  /** As the next daemon begins, after the domains of this one were closed. */
  async startAgain(): Promise<void> {
    this.domains = this.world.start();
    await this.domains.resume();
  }

  /** @returns how to ask, with the key of the owner unless another one is given */
  async serve(previews: PreviewAddresses | null = addresses(':8443')) {
    const { world, domains } = this;
    const { accounts, shares, database } = world;
    const domainHealth: Services['domainHealth'] = async ({ domain }) => {
      const isThere = world.certificates.has(domain);
      const expiresAt = isThere ? new Date(0) : null;
      return { certPresent: isThere, keyPresent: isThere, expiresAt, proxyActive: isThere };
    };
    const services = {
      ...{ sandboxes: {}, egress: {}, egressLog: {}, egressJournal: {}, operations: { metrics: new Metrics() } },
      ...{ accounts, shares, domains, domainHealth, previews: previews ?? undefined, ptyTokens: new PtyTokens() },
      ...{ keys: new ApiKeys(database), keyConnections: new KeyConnections(), rateLimits: noLimits() },
      ...{ people: {}, audit: auditOf(database) },
    };
    const app = await buildApp(services as unknown as Services, pino({ level: 'silent' }));
    this.#open.push(app);
    const { key } = this.owner;
    return async (method: 'GET' | 'POST' | 'DELETE', path = '', payload?: object, as = key): Promise<Answer> => {
      const headers = { 'x-api-key': as };
      const url = `/v1/custom-domains${path}`;
      const answer = await app.inject({ method, url, headers, ...(payload && { payload }) });
      return { status: answer.statusCode, body: answer.json() };
    };
  }

  request = (fields: object = {}) => ({ domain: NAME, share_id: this.share.id, dns_provider: 'manual', ...fields });

  async create(call: Call, fields: object = {}) {
    return (await call('POST', '', this.request(fields))).body;
  }

  /** What the owner of the domain does. */
  publish({ setup }: { setup: { txt_record: { name: string; value: string } } }): void {
    this.world.txt.set(setup.txt_record.name, ['v=spf1 -all', setup.txt_record.value]);
  }

  /** Waits until it is issued or has failed. */
  settled = (call: Call, id: number) =>
    vi.waitFor(async () => {
      const { body } = await call('GET', `/${id}`);
      expect(['issued', 'failed']).toContain(body.status);
      return body;
    }, 60_000);
}
