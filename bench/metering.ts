/** What counting and keys cost the daemon: the meter and the store alone, for a thousand sandboxes that all send. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type AccountId,
  Credit,
  DEFAULT_SIZE,
  Meter,
  newIncarnationId,
  newSandboxId,
  type SandboxId,
  type SandboxRecord,
  systemClock,
} from '@instavm/core';
import { Accounts, ApiKeys, type Database, ledger, openDatabase } from '@instavm/store';
import { createFakeVmm, fakeImages } from '@instavm/vmm/fake';
import { guestConnector } from '../apps/instavmd/src/guest/guest.ts';
import { numbersOf } from '../apps/instavmd/src/usage-samples/asking.ts';
import { UsageSampler } from '../apps/instavmd/src/usage-samples/sampler.ts';
import { median, type Row, timed } from './report.ts';

const SANDBOXES = 1_000;
const ACCOUNTS = 50;
/** Real channels, which the sandboxes share. */
const GUESTS = 20;
const TICKS = 30;
/** The default of INSTAVM_METER_SECONDS. */
const TICK_MS = 10_000;
const KEY_ROUNDS = 2_000;
const RATES = { perVcpuHour: 50_000, perGibHour: 16_000, perStoredGibHour: 100, perEgressGib: 50_000 };

export async function meteringRows(): Promise<Row[]> {
  const directory = await mkdtemp(join(tmpdir(), 'instavm-bench-'));
  const database = await openDatabase(join(directory, 'bench.db'));
  try {
    let key = '';
    const accounts: AccountId[] = [];
    for (let count = 0; count < ACCOUNTS; count++) {
      const keep = (made: string): void => {
        key = made;
      };
      accounts.push((await new Accounts(database).createWithKey(`${count}@bench`, '', 'bench', keep)).id);
    }
    return [await metered(database, accounts), await sampled(), await authenticated(new ApiKeys(database), key)];
  } finally {
    await database.destroy();
    await rm(directory, { recursive: true, force: true });
  }
}

async function metered(database: Database, accounts: readonly AccountId[]): Promise<Row> {
  const log = { info: () => {}, warn: (fields: object) => console.error(fields) };
  const store = ledger(database);
  const meter = new Meter({ store, rates: RATES, clock: systemClock, log });
  const own = { ledger: store, meter, clock: systemClock, log, isEnforced: true, welcomeMicroDollars: 50e6 };
  const credit = new Credit(own);
  await meter.load();
  await meter.takeOver({ find: async () => undefined, listUnsettled: async () => [] });
  const ids: SandboxId[] = [];
  for (let count = 0; count < SANDBOXES; count++) {
    const id = newSandboxId();
    ids.push(id);
    const record = { id, incarnationId: newIncarnationId(), accountId: accounts[count % ACCOUNTS], size: DEFAULT_SIZE };
    meter.began(record as SandboxRecord);
  }
  await meter.tick();
  const before = process.cpuUsage();
  for (let tick = 0; tick < TICKS; tick++) {
    for (const id of ids) meter.sent(id, 1_000);
    await meter.tick();
    await credit.enforce(async () => {});
  }
  const { user, system } = process.cpuUsage(before);
  const share = (user + system) / 1_000 / TICKS / TICK_MS;
  return {
    name: `${SANDBOXES} metered sandboxes, all sending: share of one processor`,
    measured: `${(share * 100).toFixed(2)} %`,
    floor: '',
    ratio: '',
    target: '≤ 2 %',
  };
}

/** Metrics of as many that nobody looks at; the guests are the fake's, and what they cost is in the number. */
async function sampled(): Promise<Row> {
  const vmm = createFakeVmm();
  const template = await vmm.buildTemplate(fakeImages, DEFAULT_SIZE, () => {});
  const vms = await Promise.all(Array.from({ length: GUESTS }, () => vmm.restore(template, newIncarnationId())));
  const guests = await Promise.all(vms.map(async (vm) => guestConnector.attach(await vm.connect('control'), 10_000)));
  let now = Date.now();
  const clock = { now: () => new Date(now), schedule: () => () => {} };
  let asked = 0;
  const sampler = new UsageSampler({
    clock,
    ask: async () => numbersOf((await guests[asked++ % GUESTS]?.stats(10_000)) ?? fail()),
  });
  for (let count = 0; count < SANDBOXES; count++)
    sampler.began({ id: newSandboxId(), size: DEFAULT_SIZE } as SandboxRecord);
  const minute = async (): Promise<void> => {
    for (let tick = 0; tick < 6; tick++) {
      now += TICK_MS;
      await sampler.tick();
    }
  };
  await minute();
  const before = process.cpuUsage();
  await minute();
  const { user, system } = process.cpuUsage(before);
  for (const guest of guests) guest.close();
  await Promise.all(vms.map((vm) => vm.kill()));
  return {
    name: `${SANDBOXES} sandboxes whose metrics nobody looks at: share of one processor, the fake guests' work in it`,
    measured: `${(((user + system) / 60e6) * 100).toFixed(2)} %`,
    floor: '',
    ratio: '',
    target: '≤ 2 %',
  };
}

const fail = (): never => {
  throw new Error('there is no such guest');
};

async function authenticated(keys: ApiKeys, key: string): Promise<Row> {
  const ms: number[] = [];
  for (let round = 0; round < KEY_ROUNDS; round++) ms.push(await timed(() => keys.authenticate(key)));
  return {
    name: 'authentication of a request, median',
    measured: `${median(ms).toFixed(3)} ms`,
    floor: '',
    ratio: '',
    target: '≤ 0.3 ms',
  };
}
