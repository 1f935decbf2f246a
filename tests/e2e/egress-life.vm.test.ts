/** The network of a sandbox over time and under load: much at once, policies that change, snapshots, clones, and a guest whose root works against it. */
import type { Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PORTS } from './egress/outside.ts';
import { World } from './egress/world.ts';

let world: World;
let sandbox: Sandbox;
const ALLOWED = { allowed_domains: ['allowed.test'] };

beforeAll(async () => {
  world = await World.open();
  sandbox = await world.sandbox();
  await world.setPolicy(sandbox, ALLOWED);
});
afterAll(() => world?.close());

const reaches = async (of: Sandbox, host: string): Promise<unknown> =>
  (await world.probe(of, [['http', host]]))[0]?.result;
const expectConnections = (count: number): Promise<void> => expect.poll(() => world.outside.connections).toBe(count);

describe('much', () => {
  it('at once: two hundred connections that are all open', async () => {
    const [outcome] = await world.probe(sandbox, [['together', 'allowed.test', PORTS.echo, 200]]);
    expect(outcome?.result).toBe(200);
    await expectConnections(0);
  });

  it('one after the other: ten thousand short connections, and nothing of them is left', {
    timeout: 600_000,
  }, async () => {
    const [outcome] = await world.probe(sandbox, [['many', 'allowed.test', PORTS.echo, 10_000, 16]], 560_000);
    console.log('10000', outcome);
    expect(outcome?.result).toEqual({});
    await expectConnections(0);
    const rows = await world.log(sandbox);
    expect(rows.filter(({ outcome }) => outcome !== 'closed')).toEqual([]);
  });

  it('that nobody reads: it waits, and holds up nobody else', async () => {
    const [outcome] = await world.probe(sandbox, [['stalled_download', 'allowed.test', 32_000_000, 2]]);
    expect(outcome?.result).toEqual(['reached allowed.test', true]);
    await expectConnections(0);
  });
});

describe('a policy that changes', () => {
  it('cuts what it forbids in the middle, and leaves the rest', async () => {
    const policy = { allowed_domains: ['allowed.test', 'other.test'] };
    await world.setPolicy(sandbox, policy);
    const cut = world.probe(sandbox, [['first_bytes', 'other.test', PORTS.slow, 1_000_000]]);
    await expectConnections(1);
    // Only now: it ends by itself, three seconds after it was connected.
    const kept = world.probe(sandbox, [['first_bytes', 'allowed.test', PORTS.slow, 30]]);
    await expectConnections(2);
    await world.setPolicy(sandbox, ALLOWED);
    expect((await cut)[0]?.result).toBe('ECONNRESET');
    expect((await kept)[0]?.result).toBe(30);
    await expect
      .poll(async () => (await world.log(sandbox, '&host=other.test')).at(-1))
      .toMatchObject({ outcome: 'cut', reason: expect.stringContaining('the policy changed') });
    await expectConnections(0);
  });

  it('cuts what was not looked at when its host has to agree from now on', async () => {
    await world.setPolicy(sandbox, { allow_http: true });
    const download = world.probe(sandbox, [['download', 'allowed.test', 4_000_000_000]]);
    await expectConnections(1);
    await world.setPolicy(sandbox, ALLOWED);
    expect((await download)[0]?.result).toBe('ECONNRESET');
  });

  it('is accepted before there is a microVM, and holds from its first packet', async () => {
    const lazy = { metadata: { lazy: true }, api_key: world.daemon.apiKey, vm_lifetime_seconds: 300 };
    const { session_id: id } = await world.api<{ session_id: string }>('POST', '/v1/sessions/session', lazy);
    await world.setPolicy({ id }, {});
    const command = `curl -sS -m 10 http://allowed.test/; echo $?`;
    const ask = { session_id: id, language: 'bash', command };
    expect((await world.api<{ stdout: string }>('POST', '/execute', ask)).stdout).toBe('7\n');
    await world.setPolicy({ id }, ALLOWED);
    expect((await world.api<{ stdout: string }>('POST', '/execute', ask)).stdout).toBe('reached allowed.test0\n');
    await world.api('POST', '/kill', { session_id: id });
  });
});

describe('a sandbox that is locked down', () => {
  it('stays so in a snapshot, in what is restored from it, in a clone, and over a suspension', async () => {
    const locked = await world.sandbox();
    await world.setPolicy(locked, ALLOWED);
    const snapshot = await locked.snapshot();
    await world.setPolicy(locked, { allow_http: true });
    const restored = await world.client.sandboxes.create({ snapshotId: snapshot.id });
    expect([await reaches(restored, 'allowed.test'), await reaches(restored, 'other.test')]).toEqual([
      'reached allowed.test',
      'ECONNREFUSED',
    ]);
    await restored.delete();
    await world.setPolicy(locked, ALLOWED);
    const { sandboxes } = await world.api<{ sandboxes: { id: string }[] }>(
      'POST',
      `/v2/sandboxes/${locked.id}/fork`,
      {},
    );
    const clone = await world.client.sandboxes.get(sandboxes[0]?.id ?? '');
    await locked.suspend();
    const answers = [await reaches(clone, 'other.test'), await reaches(locked, 'other.test')];
    expect(answers).toEqual(['ECONNREFUSED', 'ECONNREFUSED']);
    expect(await reaches(locked, 'allowed.test')).toBe('reached allowed.test');
    await clone.delete();
    await locked.delete();
  });

  it('gains nothing when root flushes its rules: it loses its own network, and no other', async () => {
    const rebel = await world.sandbox();
    await world.setPolicy(rebel, ALLOWED);
    await rebel.run('nft flush ruleset; ip rule flush; echo nameserver 8.8.8.8 > /etc/resolv.conf');
    const before = (await world.log(rebel)).length;
    const { stdoutText } = await rebel.run('timeout 3 curl -sS -m 2 http://127.0.1.2/ http://192.0.2.1/; echo $?');
    expect(stdoutText).not.toContain('reached');
    expect((await world.log(rebel)).length).toBe(before);
    expect(await reaches(sandbox, 'allowed.test')).toBe('reached allowed.test');
    await rebel.delete();
  });
});
