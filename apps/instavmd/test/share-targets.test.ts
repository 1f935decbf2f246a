/** Shares as the preview proxy sees them: which are there, who may open them, and what becomes of their sandbox meanwhile. */
import { type Duplex, PassThrough } from 'node:stream';
import type { SandboxRecord } from '@instavm/core';
import type { PreviewTargets } from '@instavm/preview';
import { ApiKeys } from '@instavm/store';
import { InstaVMError } from '@instavm/wire';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { keyRight } from '../src/key-connections.ts';
import { NOWHERE, ShareWorld } from './share-world.ts';

let world: ShareWorld;
beforeEach(async () => {
  world = await ShareWorld.open();
});
afterEach(() => world.close());

describe('shares as the preview proxy sees them', () => {
  let targets: PreviewTargets;
  /** What happens to a sandbox, in order. */
  let events: string[];
  let connectPort: (port: number, signal: AbortSignal) => Promise<Duplex>;
  const never = new AbortController().signal;

  beforeEach(() => {
    events = [];
    connectPort = async () => new PassThrough();
    const owner = {
      record: { metadata: {}, accountId: world.account.id } as SandboxRecord,
      hold: () => {
        events.push('held');
        return () => void events.push('released');
      },
      guest: async (wake: string) => {
        events.push(wake);
        return { connectPort: (port: number, signal: AbortSignal) => connectPort(port, signal) };
      },
    };
    targets = world.targets({ get: async () => owner });
  });

  it('tell the program its own name when that is asked for', async () => {
    const record = await world.sandbox();
    const share = await world.shares.open(record, 8000);
    expect((await targets.find(share.id))?.serviceAuthority).toBeUndefined();
    await world.shares.change(world.account.id, share.id, { rewriteHost: true });
    expect((await targets.find(share.id))?.serviceAuthority).toBe('localhost:8000');
  });

  async function target(isPublic = true) {
    const record = await world.sandbox();
    const { id } = await world.shares.open(record, 8000, { isPublic });
    return { record, id, target: (await targets.find(id)) as NonNullable<Awaited<ReturnType<typeof targets.find>>> };
  }
  const closed = (stream: Duplex) => new Promise<void>((done) => stream.once('close', () => done()));

  it('are found until they are revoked or their sandbox has ended', async () => {
    const { record, id, target: found } = await target(false);
    expect(found).toMatchObject({ shareId: id, sandboxId: record.id, port: 8000, isPublic: false });
    for (const text of [NOWHERE, id.toUpperCase(), `${id}a`, '', 'constructor'])
      expect(await targets.find(text), text).toBeUndefined();
    for (const state of ['suspended', 'failed', 'running', 'stopped', 'running'] as const) {
      await world.become(record.id, state);
      expect((await targets.find(id)) === undefined, state).toBe(state === 'failed' || state === 'stopped');
    }
    await world.shares.revoke(world.account.id, id);
    expect(await targets.find(id)).toBeUndefined();
  });

  it('may be opened with a key of their account', async () => {
    const { target: found, id } = await target(false);
    let stranger = '';
    await world.accounts.createWithKey('c@d', 'C', 'first', (given) => {
      stranger = given;
    });
    const end = vi.fn();
    (await targets.mayOpen(world.key, found))?.(end);
    world.keyConnections.revoke(keyRight(999));
    expect(end).not.toHaveBeenCalled();
    const [{ id: keyId = 0 } = {}] = await new ApiKeys(world.database).list(world.account.id);
    world.keyConnections.revoke(keyRight(keyId));
    expect(end).toHaveBeenCalledOnce();
    for (const wrong of [stranger, '', 'x', `${world.key}x`, 'x'.repeat(10_000)])
      expect(await targets.mayOpen(wrong, found)).toBeUndefined();
    await world.shares.revoke(world.account.id, id);
    expect(await targets.mayOpen(world.key, found)).toBeUndefined();
  });

  it('wake a suspended sandbox, connect to its port, and hold it as used until the stream is closed', async () => {
    const ports: number[] = [];
    connectPort = async (port) => {
      ports.push(port);
      return new PassThrough();
    };
    const stream = await (await target()).target.connect(never);
    expect([events, ports]).toEqual([['held', 'suspended'], [8000]]);
    stream.destroy();
    await closed(stream);
    expect(events).toEqual(['held', 'suspended', 'released']);
  });

  it('let go of the sandbox when the port cannot be reached, and when the stream was closed meanwhile', async () => {
    connectPort = async () => {
      throw new InstaVMError('guest_lost', 'it ended');
    };
    const { target: found } = await target();
    await expect(found.connect(never)).rejects.toMatchObject({ code: 'guest_lost' });
    expect(events).toEqual(['held', 'suspended', 'released']);
    connectPort = async () => {
      const stream = new PassThrough();
      stream.destroy();
      await closed(stream);
      return stream;
    };
    events.length = 0;
    await found.connect(never);
    expect(events).toEqual(['held', 'suspended', 'released']);
  });

  it('pass on that the visitor has gone', async () => {
    const gone = new AbortController();
    connectPort = (_port, signal) =>
      new Promise((_, refuse) => {
        signal.addEventListener('abort', () => refuse(signal.reason));
        gone.abort(new Error('the visitor has gone'));
      });
    await expect((await target()).target.connect(gone.signal)).rejects.toThrow('the visitor has gone');
    expect(events.at(-1)).toBe('released');
  });

  it('are told of only when a right was lost', async () => {
    const told: string[] = [];
    world.shares.onWithdrawn((_, what) => told.push(what));
    const record = await world.sandbox();
    const { id } = await world.shares.open(record, 8000);
    await world.shares.open(record, 8000, { isPublic: false });
    await world.shares.change(world.account.id, id, { isPublic: false });
    await world.shares.open(record, 8000, { isPublic: true });
    await world.shares.change(world.account.id, id, { isPublic: true });
    expect(told).toEqual([]);
    await world.shares.open(record, 8000, { isPublic: false });
    await world.shares.open(record, 8000, { isPublic: false });
    await world.shares.revoke(world.account.id, id);
    await world.shares.revoke(world.account.id, id);
    expect(told).toEqual(['public', 'share']);
  });
});
