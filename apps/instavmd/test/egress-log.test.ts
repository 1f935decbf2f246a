/** The routes of the egress log over a real store and journal; sandboxes are only looked up. */
import { EgressJournal, type EgressLog, newSandboxId, systemClock } from '@instavm/core';
import { Accounts, ApiKeys, type Database, egressLog, openDatabase } from '@instavm/store';
import { egressEntry, egressRecord } from '@instavm/testing';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { buildApp, type Services } from '../src/app.ts';
import { parseConfig } from '../src/config.ts';
import { createGateway, egressRules } from '../src/egress.ts';
import { KeyConnections } from '../src/key-connections.ts';
import { Metrics } from '../src/operations/metrics.ts';
import { PtyTokens } from '../src/pty-tokens.ts';
import { auditOf } from './audit-of.ts';
import { noLimits } from './no-limits.ts';

// biome-ignore lint/suspicious/noExplicitAny: events are whatever the server sent; the tests look at them.
type Event = any;

describe('the egress log', () => {
  const id = newSandboxId();
  let database: Database;
  let log: EgressLog;
  let journal: EgressJournal;
  let app: FastifyInstance;
  let keyConnections: KeyConnections;
  let url: string;
  let key = '';
  beforeEach(async () => {
    database = await openDatabase(':memory:');
    const accounts = new Accounts(database);
    const { id: accountId } = await accounts.createWithKey('a@b', 'A', 'first', (given) => {
      key = given;
    });
    log = egressLog(database);
    const logger = pino({ level: 'silent' });
    journal = new EgressJournal(log, systemClock, logger);
    const record = { id, accountId, metadata: {} };
    const sandboxes = { get: async () => ({ record }) } as unknown as Services['sandboxes'];
    keyConnections = new KeyConnections();
    const own = {
      egress: egressRules(
        createGateway(parseConfig({}), { record: () => {}, sent: () => {}, received: () => {} }, logger),
      ),
      egressLog: log,
      egressJournal: journal,
      ...{ audit: auditOf(database), people: {} as Services['people'] },
      operations: { metrics: new Metrics() } as Services['operations'],
      shares: {} as Services['shares'],
      ...{ previews: undefined, domains: {} as Services['domains'] },
      domainHealth: (() => {}) as unknown as Services['domainHealth'],
      ...({} as Pick<Services, 'credit' | 'sampler' | 'meter' | 'rates' | 'usage' | 'quotas'>),
    };
    app = await buildApp(
      {
        sandboxes,
        accounts,
        keys: new ApiKeys(database),
        keyConnections,
        rateLimits: noLimits(),
        trustedProxies: () => false,
        ptyTokens: new PtyTokens(),
        ...own,
      },
      logger,
    );
    await app.listen({ host: '127.0.0.1', port: 0 });
    const { port } = app.server.address() as { port: number };
    url = `http://127.0.0.1:${port}/v2/sandboxes/${id}/egress/log`;
  });
  afterEach(async () => {
    journal.endFollowers();
    await app.close();
    await journal.stop();
    keyConnections.stop();
    await database.destroy();
  });

  const get = (query: string, signal?: AbortSignal) =>
    fetch(url + query, { headers: { 'x-api-key': key }, ...(signal ? { signal } : {}) });
  const ids = async (query: string): Promise<number[]> => {
    const { entries } = (await (await get(query)).json()) as { entries: { id: number }[] };
    return entries.map((each) => each.id);
  };

  /** Reads events as they come. */
  async function follow(query = ''): Promise<{ next(count: number): Promise<Event[]>; stop(): void }> {
    const stop = new AbortController();
    const response = await get(`?follow=true${query}`, stop.signal);
    const reader = (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    const next = async (count: number): Promise<Event[]> => {
      const events: Event[] = [];
      while (events.length < count) {
        const end = text.indexOf('\n\n');
        if (end < 0) text += (await reader.read()).value ?? '';
        else {
          if (text.startsWith('data: ')) events.push(JSON.parse(text.slice('data: '.length, end)));
          text = text.slice(end + 2);
        }
      }
      return events;
    };
    return { next, stop: () => stop.abort() };
  }

  it('is read in pages, newest last, by verdict and by host', async () => {
    await log.append(id, [
      egressEntry(),
      egressEntry({ host: 'a.test', allowed: false, outcome: 'denied' }),
      egressEntry(),
    ]);
    expect(await ids('')).toEqual([1, 2, 3]);
    expect(await ids('?limit=2')).toEqual([2, 3]);
    expect(await ids('?limit=2&before=3')).toEqual([1, 2]);
    expect(await ids('?after=1')).toEqual([2, 3]);
    expect(await ids('?verdict=denied')).toEqual([2]);
    expect(await ids('?host=Example.com&verdict=allowed')).toEqual([1, 3]);
    const { entries } = (await (await get('?limit=1')).json()) as { entries: Event[] };
    expect(entries[0]).toEqual({
      ...{ id: 3, at: '2026-01-01T00:00:00.000Z', kind: 'connect', host: 'example.com', port: 443 },
      ...{ address: '192.0.2.1', allowed: true, rule: 'allow_https', outcome: 'closed', reason: null },
      ...{ bytes_sent: 1, bytes_received: 2, duration_ms: 3, repeated: 1 },
    });
  });

  it('is followed from a row on, then as things happen, beginnings first', async () => {
    await log.append(id, [egressEntry(), egressEntry(), egressEntry()]);
    const stream = await follow('&after=1');
    expect((await stream.next(2)).map((event) => event.id)).toEqual([2, 3]);
    journal.record(id, egressRecord({ outcome: 'open', host: 'live' }));
    expect(await stream.next(1)).toMatchObject([{ id: null, host: 'live', outcome: 'open' }]);
    journal.record(id, egressRecord({ host: 'live' }));
    expect(await stream.next(1)).toMatchObject([{ id: 4, host: 'live', outcome: 'closed' }]);
    stream.stop();
  });

  it('is followed from now on when no row is named, and only for what was asked for', async () => {
    await log.append(id, [egressEntry({ allowed: false })]);
    const stream = await follow('&verdict=denied&host=test');
    journal.record(id, egressRecord({ outcome: 'open' }));
    journal.record(id, egressRecord());
    journal.record(id, egressRecord({ host: 'b.test', allowed: false, outcome: 'denied' }));
    await journal.flush();
    journal.record(id, egressRecord({ host: 'test', allowed: false, outcome: 'denied' }));
    expect((await stream.next(2)).map((event) => [event.id, event.host])).toEqual([
      [3, 'b.test'],
      [4, 'test'],
    ]);
    stream.stop();
  });

  it('says how much is gone when it is followed from a row that is not kept any more', async () => {
    const many = Array.from({ length: 10_000 }, () => egressEntry());
    await log.append(id, many);
    await log.append(id, many.slice(0, 50));
    const stream = await follow('&after=7');
    const events = await stream.next(10_001);
    expect(events[0]).toEqual({ kind: 'gap', missed: 43 });
    expect(events.slice(1).map((event) => event.id)).toEqual(many.map((_, index) => 51 + index));
    stream.stop();
  });
});
