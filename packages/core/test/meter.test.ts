/** What the meter writes into the ledger, over random histories in which the daemon may die at any step, against what really ran. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HOUR_MS, Meter, type Rates, type SandboxId, type SandboxOwner, STEPS, type Step } from '../src/index.ts';
import { ACCOUNT, type HandGuest, Life, ladder, SIZE, World } from './fakes.ts';
import { settled } from './settled.ts';
import { UsageMemory } from './usage-memory.ts';

/** So odd that no hour costs a whole number. */
const RATES: Rates = { perVcpuHour: 50_001, perGibHour: 16_003, perStoredGibHour: 100, perEgressGib: 50_000 };
const TICK_MS = 10_000;
/** The dearest and the cheapest millisecond of the one size there is, in micro-dollars. */
const COST_OF_MS = (SIZE.vcpus * RATES.perVcpuHour + (SIZE.memoryMib / 1_024) * RATES.perGibHour) / HOUR_MS;

/** A daemon with its meter, on a world that outlives it. */
class Stage {
  readonly world = new World();
  readonly usage = new UsageMemory();
  readonly ids: SandboxId[] = [];
  life = new Life();
  meter!: Meter;
  service!: ReturnType<typeof ladder>['service'];
  #create!: ReturnType<typeof ladder>['create'];
  #fatal: Step | undefined;
  #held: PromiseWithResolvers<void> | undefined;
  /** What really ran, and was sent. */
  ranMs = 0;
  sentBytes = 0;
  /** Since the last tick that was written: what a crash may lose. */
  unwritten = { ms: 0, bytes: 0 };
  lost = { ms: 0, bytes: 0 };

  async begin(): Promise<void> {
    const { life } = this;
    const { clock } = this.world;
    this.meter = new Meter({ store: life.of(this.usage), rates: RATES, clock, log: { warn: () => {} } });
    const reached = (step: Step): void => {
      if (step !== this.#fatal) return;
      this.#fatal = undefined;
      life.isOver = true;
    };
    const { service, create } = ladder({ life, usage: this.meter, reached }, this.world);
    Object.assign(this, { service });
    this.#create = create;
    await this.meter.load();
    await service.recover(0);
    const stored = this.world.stored;
    const { fails } = this.usage;
    await this.meter.takeOver({
      find: async (id) => stored.get(id),
      listUnsettled: async () => [...stored.values()].filter(({ state }) => state === 'running'),
    });
    this.#ticked(fails);
  }

  get running(): number {
    const alive = new Set(this.world.alive.map(({ incarnationId }) => incarnationId));
    const records = [...this.world.stored.values()];
    return records.filter(({ state, incarnationId }) => state === 'running' && alive.has(incarnationId as never))
      .length;
  }

  async owner(index: number): Promise<SandboxOwner<HandGuest> | undefined> {
    const id = this.ids[index % Math.max(1, this.ids.length)];
    return id === undefined || !this.world.stored.has(id) ? undefined : this.service.get(ACCOUNT, id);
  }

  async do(action: Action, index: number): Promise<void> {
    const owner = await this.owner(index);
    const ignored = (): void => {};
    if (action === 'create' && this.ids.length < 3) {
      const before = new Set(this.world.stored.keys());
      await this.whole(this.#create(86_400 * 365).then(ignored, ignored));
      this.ids.push(...[...this.world.stored.keys()].filter((id) => !before.has(id)));
    } else if (action === 'start') await this.whole(owner?.start().catch(ignored));
    else if (action === 'suspend') await this.whole(owner?.suspend('').catch(ignored));
    else if (action === 'end') await this.whole(owner?.end('', 'request').catch(ignored));
    else if (action === 'die') this.world.alive.at(index % Math.max(1, this.world.alive.length))?.die();
    else if (action === 'send' && owner?.record.state === 'running') this.#send(owner.record.id);
    await settled();
    if (this.life.isOver) await this.crash();
  }

  /** An operation of a daemon that dies meanwhile never ends. */
  whole(operation: Promise<void> | undefined): Promise<void> {
    const over = (async () => {
      while (!this.life.isOver) await new Promise((resolve) => setImmediate(resolve));
    })();
    const done = Promise.resolve(operation).then(() => {});
    return Promise.race([done, over]);
  }

  #send(id: SandboxId): void {
    this.meter.sent(id, 1_000_003);
    this.sentBytes += 1_000_003;
    this.unwritten.bytes += 1_000_003;
  }

  /** Begins a tick whose commit waits. */
  async hold(): Promise<void> {
    if (this.#held !== undefined) return;
    const gate = Promise.withResolvers<void>();
    // A daemon that dies meanwhile has not written.
    gate.promise.catch(() => {});
    this.usage.gate = gate.promise;
    this.#held = gate;
    void this.meter.tick();
    await settled();
  }

  #letGo(isDead = false): void {
    if (isDead) this.#held?.reject(new Error('the daemon died'));
    else this.#held?.resolve();
    this.#held = undefined;
    this.usage.gate = undefined;
  }

  dieAt(step: Step): void {
    this.#fatal = step;
  }

  /** @param downMs how long there is no daemon */
  async crash(downMs = 0): Promise<void> {
    this.life.isOver = true;
    this.#letGo(true);
    await settled();
    this.life = new Life();
    this.#fatal = undefined;
    this.lost.ms += this.unwritten.ms;
    this.lost.bytes += this.unwritten.bytes;
    // What dies with it is as good as dead from here; what lives runs on all the time.
    this.#pass(downMs);
    await this.begin();
  }

  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= TICK_MS) {
      this.#pass(Math.min(left, TICK_MS));
      await this.tick();
    }
  }

  #pass(ms: number): void {
    const used = this.running * ms;
    this.ranMs += used;
    this.unwritten.ms += used;
    this.world.clock.advance(ms);
  }

  async tick(): Promise<void> {
    this.#letGo();
    const { fails } = this.usage;
    await this.meter.tick();
    this.#ticked(fails);
  }

  #ticked(fails: UsageMemory['fails']): void {
    if (fails === undefined) this.unwritten = { ms: 0, bytes: 0 };
    // Bytes that come between a commit that nobody knows of and its repetition.
    else if (fails === 'after') this.lost.bytes += this.unwritten.bytes;
  }
}

const ACTIONS = ['create', 'start', 'suspend', 'end', 'die', 'send'] as const;
type Action = (typeof ACTIONS)[number];

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('act' as const), action: fc.constantFrom(...ACTIONS), index: fc.nat(2) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 3 * HOUR_MS }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('crash' as const), downMs: fc.integer({ min: 0, max: HOUR_MS }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('dieAt' as const), step: fc.constantFrom(...STEPS) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('hold' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('fail' as const),
      how: fc.constantFrom('before' as const, 'after' as const),
    }),
  },
);

describe('the ledger over a random history', () => {
  it('is what really ran, to the millisecond, less at most the last tick before each crash', {
    timeout: 120_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const stage = new Stage();
        await stage.begin();
        await stage.do('create', 0);
        for (const next of steps) {
          if (next.kind === 'act') await stage.do(next.action, next.index);
          else if (next.kind === 'pass') await stage.pass(next.ms);
          else if (next.kind === 'crash') await stage.crash(next.downMs);
          else if (next.kind === 'dieAt') stage.dieAt(next.step);
          else if (next.kind === 'hold') await stage.hold();
          else stage.usage.fails = next.how;
        }
        stage.usage.fails = undefined;
        await stage.tick();
        const { usage, meter, ranMs, sentBytes, lost } = stage;
        const accrued = meter.accruedOf(ACCOUNT);
        const chargedMs = (usage.sum('vcpuMs') + accrued.vcpuMs) / SIZE.vcpus;
        expect(chargedMs).toBeLessThanOrEqual(ranMs);
        expect(chargedMs).toBeGreaterThanOrEqual(ranMs - lost.ms);
        expect((usage.sum('mibMs') + accrued.mibMs) / SIZE.memoryMib).toBe(chargedMs);
        const bytes = usage.sum('bytes') + accrued.egressBytes;
        expect(bytes).toBeLessThanOrEqual(sentBytes);
        expect(bytes).toBeGreaterThanOrEqual(sentBytes - lost.bytes);
        // Money is what was used at the rates, however it was cut: less than one micro-dollar off for each run and each of its transfers.
        const cost = chargedMs * COST_OF_MS + (bytes * RATES.perEgressGib) / 1_024 ** 3;
        const pieces =
          stage.world.vms.length + [...usage.entries.values()].filter(({ kind }) => kind === 'egress').length + 3;
        const charged = accrued.microDollars - usage.sum('microDollars');
        expect(Math.abs(charged - cost)).toBeLessThanOrEqual(pieces);
        for (const { from, to } of usage.entries.values())
          expect(to.getTime() - from.getTime()).toBeLessThanOrEqual(HOUR_MS);
        expect(usage.runs.size).toBe(stage.running);
      }),
      { numRuns: 150 },
    );
  });
});

describe('a meter', () => {
  const entriesOf = (stage: Stage) => [...stage.usage.entries.values()];

  it('does not charge what is suspended', async () => {
    const stage = new Stage();
    await stage.begin();
    await stage.do('create', 0);
    await stage.pass(1_000);
    await stage.do('suspend', 0);
    await stage.pass(5 * HOUR_MS);
    expect(entriesOf(stage).map(({ vcpuMs }) => vcpuMs)).toEqual([1_000 * SIZE.vcpus]);
  });

  it('charges what outlived a daemon for the time without one, and what did not only as long as it was seen', async () => {
    const stage = new Stage();
    await stage.begin();
    await stage.do('create', 0);
    await stage.pass(TICK_MS);
    await stage.crash(1_000_000);
    await stage.pass(TICK_MS);
    expect(stage.meter.accruedOf(ACCOUNT).vcpuMs).toBe((1_000_000 + 2 * TICK_MS) * SIZE.vcpus);
    stage.life.isOver = true;
    stage.world.clock.advance(1_000_000);
    stage.world.alive[0]?.die();
    await stage.crash();
    expect(stage.usage.sum('vcpuMs')).toBe((1_000_000 + 2 * TICK_MS) * SIZE.vcpus);
  });

  it('loses nothing of what happens while it writes', async () => {
    const stage = new Stage();
    const { usage } = stage;
    await stage.begin();
    await stage.do('create', 0);
    await stage.do('create', 1);
    for (const index of [0, 1]) await stage.do('send', index);
    stage.world.clock.advance(HOUR_MS + 1_000);
    const gate = Promise.withResolvers<void>();
    usage.gate = gate.promise;
    const writing = stage.meter.tick();
    await settled();
    for (const index of [0, 1]) await stage.do('send', index);
    stage.world.clock.advance(1_000);
    await stage.do('end', 0);
    gate.resolve();
    await writing;
    await stage.tick();
    await stage.do('end', 1);
    await stage.tick();
    expect(usage.sum('vcpuMs')).toBe(2 * (HOUR_MS + 2_000) * SIZE.vcpus);
    expect(usage.sum('bytes')).toBe(stage.sentBytes);
    expect(usage.runs.size).toBe(0);
  });

  it('charges nothing for the time before there was a meter', async () => {
    const stage = new Stage();
    await stage.begin();
    await stage.do('create', 0);
    await stage.pass(5 * HOUR_MS);
    Object.assign(stage.usage, { watchedUntil: null });
    stage.usage.entries.clear();
    stage.usage.runs.clear();
    await stage.crash();
    await stage.pass(1_000);
    expect(stage.usage.sum('vcpuMs') + stage.meter.accruedOf(ACCOUNT).vcpuMs).toBe(1_000 * SIZE.vcpus);
  });

  it('charges what is stored by the hour, for the part of it that it was there, also for hours without a daemon', async () => {
    const stage = new Stage();
    await stage.begin();
    const now = stage.world.clock.now().getTime();
    stage.usage.stored = [{ accountId: ACCOUNT, bytes: 10 * 1_024 ** 3, since: new Date(now + HOUR_MS / 2) }];
    await stage.pass(2 * HOUR_MS);
    await stage.crash(3 * HOUR_MS);
    const charges = entriesOf(stage).map(({ kind, microDollars }) => [kind, microDollars]);
    expect(charges).toEqual([500, 1_000, 1_000, 1_000, 1_000].map((cost) => ['snapshot_storage', -cost]));
  });
});
