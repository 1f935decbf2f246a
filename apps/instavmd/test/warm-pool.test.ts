/** The warm pool of a daemon: filled after the start, used by a create, and gone with the daemon. */
import { startTestDaemon } from '@instavm/testing';
import { expect, it } from 'vitest';
import { apiOf } from './api.ts';

it('a daemon keeps microVMs ready, gives them away personalized, and ends them when it stops', async () => {
  const daemon = await startTestDaemon({ vmm: 'fake', env: { INSTAVM_WARM_POOL: '1' } });
  const api = apiOf(daemon);
  const warm = async () => (await api.request('GET', '/healthz')).body.warm;
  await expect.poll(warm, { timeout: 10_000 }).toBe(1);
  const { body } = await api.json('POST', '/v2/sandboxes', { env: { WHO: 'me' } });
  expect(await warm()).toBe(0);
  expect((await api.execute(body.id, 'echo $WHO')).body.stdout).toBe('me\n');
  expect(daemon.log()).toContain('"isWarm":true');
  await expect.poll(warm, { timeout: 10_000 }).toBe(1);
  await daemon.stop();
});
