/** The warm pool of a daemon: filled after the start, used by a create, and gone with the daemon. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { startTestDaemon } from '@instavm/testing';
import { expect, it } from 'vitest';
import { apiOf } from './api.ts';

it('a daemon keeps microVMs ready, gives them away personalized, and ends them when it stops', async () => {
  const daemon = await startTestDaemon({ vmm: 'fake', env: { INSTAVM_WARM_POOL: '1' } });
  const api = apiOf(daemon);
  const warm = async () => (await api.request('GET', '/healthz')).body.warm;
  const incarnations = () => readdir(join(daemon.dataDirectory, 'run'));
  await expect.poll(warm).toBe(1);
  const ready = await incarnations();
  const { body } = await api.json('POST', '/v2/sandboxes', { env: { WHO: 'me' } });
  expect([body.incarnation_id]).toEqual(ready);
  expect((await api.execute(body.id, 'echo $WHO')).body.stdout).toBe('me\n');
  await expect.poll(() => daemon.log()).toContain('"isWarm":true');
  await expect.poll(warm).toBe(1);
  expect(await incarnations()).toHaveLength(2);
  await daemon.stop();
});
