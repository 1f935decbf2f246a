/** Random histories of a sandbox against a small model, and all at once against what must always hold. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SandboxOwner, SandboxState } from '../src/index.ts';
import { ACCOUNT, type HandGuest, type HandVm, Life, ladder, World } from './fakes.ts';
import { settled } from './settled.ts';

/** What a sandbox is to who uses it: whether it runs, what its memory holds, and how it came to where it is. */
type Model = { state: SandboxState; memory: number; endedBy: 'request' | 'other' };

const ACTIONS = [
  'start',
  'wake',
  'rouse',
  'suspend',
  'resume',
  'end',
  'work',
  'die',
  'drop',
  'snapshot',
  'crash',
] as const;
type Action = (typeof ACTIONS)[number];

/** What the model says of one action. @returns whether it is refused */
function act(model: Model, action: Action): boolean {
  const isUp = model.state === 'running';
  const fresh = (): boolean => {
    Object.assign(model, { state: 'running', memory: 0 });
    return false;
  };
  switch (action) {
    case 'start':
      if (model.state === 'suspended') model.state = 'running';
      else if (!isUp) fresh();
      return false;
    case 'wake':
      if (isUp) return false;
      if (model.state === 'stopped' && model.endedBy === 'request') return true;
      return act(model, 'start');
    case 'rouse':
    case 'resume':
      if (model.state === 'suspended') model.state = 'running';
      return model.state !== 'running';
    case 'suspend':
      if (isUp) model.state = 'suspended';
      return model.state !== 'suspended';
    case 'snapshot':
      return !isUp && model.state !== 'suspended';
    case 'end':
      if (model.state !== 'stopped') Object.assign(model, { state: 'stopped', endedBy: 'request' });
      return false;
    case 'die':
      if (isUp) model.state = 'failed';
      return false;
    case 'work':
      if (isUp) model.memory++;
      return false;
    case 'drop':
    case 'crash':
      return false;
  }
}

class Stage {
  readonly world = new World();
  life = new Life();
  #ladder = ladder({ life: this.life }, this.world);
  owner!: SandboxOwner<HandGuest>;

  async begin(): Promise<void> {
    this.owner = await this.#ladder.create(86_400);
  }

  get vm(): HandVm | undefined {
    return this.world.alive.at(-1);
  }

  async do(action: Action): Promise<unknown> {
    switch (action) {
      case 'start':
        return this.owner.start();
      case 'wake':
        return this.owner.guest('always');
      case 'rouse':
        return this.owner.guest('suspended');
      case 'suspend':
        return this.owner.suspend('');
      case 'resume':
        return this.owner.resume();
      case 'end':
        return this.owner.end('', 'request');
      case 'snapshot':
        return (await this.#ladder.service.snapshots.take(this.owner, {})).done;
      case 'die':
        return this.vm?.die();
      case 'work':
        if (this.vm !== undefined) this.vm.memory++;
        return;
      case 'drop':
        return this.world.guests.at(-1)?.close();
      case 'crash': {
        const { id } = this.owner.record;
        this.life.isOver = true;
        this.life = new Life();
        this.#ladder = ladder({ life: this.life }, this.world);
        await this.#ladder.service.recover(0);
        this.owner = await this.#ladder.service.get(ACCOUNT, id);
      }
    }
  }

  /** What holds whenever nothing is under way. */
  check(): void {
    const { record } = this.owner;
    const { state } = record;
    expect(['running', 'suspended', 'stopped', 'failed']).toContain(state);
    expect(this.world.stored.get(record.id)).toEqual(record);
    expect(this.world.alive).toHaveLength(state === 'running' ? 1 : 0);
    if (state === 'running') expect(this.vm?.incarnationId).toBe(record.incarnationId);
    expect([record.expiresAt === null, record.savedIn === null, record.leaseLeftMs === null]).toEqual([
      state !== 'running',
      state !== 'suspended',
      state !== 'suspended',
    ]);
    const snapshots = [...this.world.snapshots.values()];
    const kept = new Set([
      ...snapshots.flatMap((each) => (each.status === 'ready' ? [each.filesId] : [])),
      record.savedIn,
    ]);
    kept.delete(null);
    expect(this.world.disk.size).toBe(kept.size);
  }
}

describe('a sandbox over a random history', () => {
  it('does exactly what the model does, one request after another, also across crashes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...ACTIONS), { maxLength: 20 }), async (actions) => {
        const stage = new Stage();
        await stage.begin();
        const model: Model = { state: 'running', memory: 0, endedBy: 'other' };
        for (const action of actions) {
          const before = stage.owner.record;
          const isRefused = await stage.do(action).then(
            () => false,
            () => true,
          );
          await settled();
          expect([action, isRefused]).toEqual([action, act(model, action)]);
          expect([action, stage.owner.record.state]).toEqual([action, model.state]);
          if (model.state === 'running') expect([action, stage.vm?.memory]).toEqual([action, model.memory]);
          stage.check();
          // An incarnation never comes back, and no two epochs are one.
          const { epoch, incarnationId } = stage.owner.record;
          expect(epoch === before.epoch).toBe(incarnationId === before.incarnationId);
          expect(epoch).toBeGreaterThanOrEqual(before.epoch);
        }
      }),
      { numRuns: 250 },
    );
  });

  it('keeps its promises when everyone asks at once', async () => {
    const step = fc.oneof(
      fc.constantFrom(...ACTIONS.filter((action) => action !== 'crash')),
      fc.integer({ min: 1, max: 90_000 }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(step, fc.boolean()), { maxLength: 25 }), async (steps) => {
        const stage = new Stage();
        await stage.begin();
        const waiting: Promise<unknown>[] = [];
        for (const [next, isPause] of steps) {
          if (typeof next === 'number') stage.world.clock.advance(next);
          else waiting.push(stage.do(next).catch(() => {}));
          if (isPause) await settled();
        }
        await Promise.all(waiting);
        stage.world.clock.advance(1_000);
        await settled();
        stage.check();
      }),
      { numRuns: 250 },
    );
  });
});
