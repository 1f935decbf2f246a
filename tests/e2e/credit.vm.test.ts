/** Credit with real guests: what they send is charged, and one without credit sleeps with all that it was doing. */
import type { Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PORTS } from './egress/outside.ts';
import { World } from './egress/world.ts';

const SENT_BYTES = 3_000_000;

let world: World;
let sandbox: Sandbox;
beforeAll(async () => {
  world = await World.open(() => ({ INSTAVM_CREDIT: 'enforce', INSTAVM_METER_SECONDS: '0.5' }));
  sandbox = await world.sandbox();
  await world.setPolicy(sandbox, { allowed_domains: ['allowed.test'] });
});
afterAll(() => world?.close());

const text = async (script: string): Promise<string> =>
  new TextDecoder().decode((await sandbox.run(['bash', '-c', script])).stdout);

describe('a sandbox that is paid for', () => {
  it('is charged for what it sends, as it sends it', async () => {
    const { credit } = world.client;
    // Of two days: one may end meanwhile.
    const sent = async (): Promise<number> => (await credit.usage(2)).totals.egressGib * 1_024 ** 3;
    const before = await sent();
    const program = `import socket
s = socket.create_connection(("allowed.test", ${PORTS.echo}))
s.sendall(b"x" * ${SENT_BYTES}); s.shutdown(1)
print(sum(map(len, iter(lambda: s.recv(65536), b""))))`;
    expect(await text(`python3 -c '${program}'`)).toBe(`${SENT_BYTES}\n`);
    expect((await sent()) - before).toBeGreaterThanOrEqual(SENT_BYTES);
    expect((await sent()) - before).toBeLessThan(SENT_BYTES * 1.1);
  });

  it('sleeps when its account has nothing left, and goes on in the middle when it has', async () => {
    const { credit } = world.client;
    await text(
      'mkdir -p /dev/shm/m; (while :; do date +%s >> /dev/shm/m/ticks; sleep 0.2; done) >/dev/null 2>&1 & echo $! > /dev/shm/m/pid',
    );
    const pid = await text('cat /dev/shm/m/pid');
    const { remaining } = await credit.balance();
    await credit.grant(-(remaining + 1));
    await expect.poll(async () => (await sandbox.info()).state).toBe('suspended');
    expect((await sandbox.info()).stateReason).toBe('the credit of the account is used up');
    await expect(sandbox.run(['true'])).rejects.toMatchObject({ code: 'credit_exhausted' });
    await expect(world.client.sandboxes.create()).rejects.toMatchObject({ code: 'credit_exhausted', status: 403 });
    await credit.grant(20);
    expect(await text(`kill -0 ${pid.trim()} && cat /dev/shm/m/pid`)).toBe(pid);
  });
});
