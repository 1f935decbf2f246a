/**
 * What each sandbox used over the last hour or more. A guest is asked for what only it knows, every ten seconds while someone looks and
 * every minute otherwise: a thousand idle guests shall be left idle. What goes over the network the daemon knows by itself.
 */
import { type Clock, mapLimited, type SandboxId, type SandboxRecord } from '@instavm/core';
import { Ring, type Sample } from './ring.ts';

const TICK_MS = 10_000;
/** Without anybody who looks. */
const UNWATCHED_MS = 60_000;
/** Who looks asks again within this time. */
const WATCHED_MS = 60_000;
const ASKED_AT_ONCE = 8;
/** So many a line takes: they come soon, whoever looks. */
const LEAST_SHOWN = 2;
/** Those that run not among them: what was used by what has ended is kept for a while. */
const MOST_ENDED = 500;

/** As a guest says, which may say anything. */
export type GuestNumbers = {
  readonly memoryTotalBytes: number;
  readonly memoryAvailableBytes: number;
  readonly diskTotalBytes: number;
  readonly diskFreeBytes: number;
  readonly processes: number;
  readonly cpuTimeMs: number;
};

export type Traffic = {
  egressSentBytes: number;
  egressReceivedBytes: number;
  previewSentBytes: number;
  previewReceivedBytes: number;
};

export type SamplerPorts = {
  readonly clock: Clock;
  /** @throws when it cannot be asked now */
  readonly ask: (record: SandboxRecord) => Promise<GuestNumbers>;
};

export type History = {
  readonly memoryTotalBytes: number;
  readonly diskTotalBytes: number;
  readonly samples: readonly Sample[];
};

type Before = { readonly at: number; readonly cpuTimeMs: number };
type Watched = {
  record: SandboxRecord;
  readonly ring: Ring;
  totals: Pick<History, 'memoryTotalBytes' | 'diskTotalBytes'>;
  traffic: Traffic;
  isRunning: boolean;
  /** The last answer of this incarnation: CPU time is counted from it. */
  before: Before | undefined;
  lookedAt: number;
};

export class UsageSampler {
  readonly #ports: SamplerPorts;
  readonly #watched = new Map<SandboxId, Watched>();
  #cancel: () => void = () => {};
  #ticking: Promise<void> | undefined;

  constructor(ports: SamplerPorts) {
    this.#ports = ports;
  }

  began(record: SandboxRecord): void {
    const known = this.#watched.get(record.id);
    this.#watched.delete(record.id);
    const fresh = { ring: new Ring(), totals: { memoryTotalBytes: 0, diskTotalBytes: 0 }, lookedAt: -Infinity };
    // Asked soon, and again soon after: what is used is used between two answers.
    this.#watched.set(record.id, { ...(known ?? fresh), record, traffic: none(), isRunning: true, before: undefined });
  }

  ended({ id }: SandboxRecord): void {
    const known = this.#watched.get(id);
    if (known === undefined) return;
    known.isRunning = false;
    const ended = [...this.#watched].filter(([, { isRunning }]) => !isRunning);
    for (const [old] of ended.slice(0, -MOST_ENDED)) this.#watched.delete(old);
  }

  /** Called for every piece of every connection. */
  count(id: SandboxId, kind: keyof Traffic, bytes: number): void {
    const known = this.#watched.get(id);
    if (known !== undefined) known.traffic[kind] += bytes;
  }

  /** Somebody looks: from now on it is asked more often. */
  historyOf(id: SandboxId): History {
    const known = this.#watched.get(id);
    if (known === undefined) return { memoryTotalBytes: 0, diskTotalBytes: 0, samples: [] };
    known.lookedAt = this.#now();
    return { ...known.totals, samples: known.ring.samples() };
  }

  start(): void {
    const { clock } = this.#ports;
    this.#cancel = clock.schedule(new Date(this.#now() + TICK_MS), () => {
      this.start();
      // Guests that are slow to answer are not asked twice.
      this.#ticking ??= this.tick().finally(() => {
        this.#ticking = undefined;
      });
    });
  }

  /** Waits for guests that are being asked. */
  async stop(): Promise<void> {
    this.#cancel();
    await this.#ticking;
  }

  /** Asks all whose time has come. Never rejects. */
  async tick(): Promise<void> {
    const now = this.#now();
    const due = [...this.#watched.values()].filter((each) => each.isRunning && isDue(each, now));
    await mapLimited(due, ASKED_AT_ONCE, (each) => this.#sample(each));
  }

  async #sample(known: Watched): Promise<void> {
    const { record } = known;
    let told: GuestNumbers;
    try {
      told = await this.#ports.ask(record);
    } catch {
      // It is being suspended, or does not answer: whoever owns it notices that.
      return;
    }
    // What ran meanwhile may be another incarnation.
    if (known.record !== record || !known.isRunning) return;
    const now = this.#now();
    const { before } = known;
    known.before = { at: now, cpuTimeMs: told.cpuTimeMs };
    const [memoryTotalBytes, diskTotalBytes] = [amount(told.memoryTotalBytes), amount(told.diskTotalBytes)];
    known.totals = { memoryTotalBytes, diskTotalBytes };
    if (before === undefined || now <= before.at) return;
    const { traffic } = known;
    known.traffic = none();
    const elapsedMs = now - before.at;
    known.ring.add(new Date(now), {
      ...traffic,
      seconds: elapsedMs / 1_000,
      cpu: share(told.cpuTimeMs - before.cpuTimeMs, elapsedMs * record.size.vcpus),
      memoryUsedBytes: Math.max(0, memoryTotalBytes - amount(told.memoryAvailableBytes)),
      diskUsedBytes: Math.max(0, diskTotalBytes - amount(told.diskFreeBytes)),
      processes: amount(told.processes),
    });
  }

  #now(): number {
    return this.#ports.clock.now().getTime();
  }
}

function isDue({ before, lookedAt, ring }: Watched, now: number): boolean {
  if (before === undefined || ring.length < LEAST_SHOWN || now - lookedAt < WATCHED_MS) return true;
  return now - before.at >= UNWATCHED_MS - TICK_MS / 2;
}

const none = (): Traffic => ({
  egressSentBytes: 0,
  egressReceivedBytes: 0,
  previewSentBytes: 0,
  previewReceivedBytes: 0,
});

const amount = (value: number): number => (Number.isFinite(value) ? Math.min(Math.max(0, value), 2 ** 50) : 0);
const share = (used: number, most: number): number => (most <= 0 ? 0 : Math.min(1, Math.max(0, amount(used) / most)));
