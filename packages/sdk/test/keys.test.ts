/** API keys through the client. */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

let daemon: TestDaemon;
let client: InstaVM;
const clients: InstaVM[] = [];
const by = (apiKey: string): InstaVM => {
  const made = new InstaVM({ apiKey, baseUrl: daemon.baseUrl });
  clients.push(made);
  return made;
};
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake' });
  client = by(daemon.apiKey);
});
afterAll(async () => {
  for (const each of clients) each.close();
  await daemon.stop();
});

describe('API keys', () => {
  it('are made, found, changed, rotated and revoked', async () => {
    const expiresAt = new Date(Date.now() + 60_000);
    const { secret, ...key } = await client.keys.create({
      name: 'ci',
      description: 'of the build',
      scope: 'run',
      expiresAt,
    });
    expect(key).toMatchObject({ name: 'ci', description: 'of the build', scope: 'run', expiresAt, lastUsedAt: null });
    expect(await client.keys.get(key.id)).toEqual(key);
    expect((await client.keys.list())[0]).toEqual(key);
    expect(await client.keys.update(key.id, { name: 'cd', expiresAt: null })).toMatchObject({
      name: 'cd',
      expiresAt: null,
    });
    const next = await client.keys.rotate(key.id);
    await expect(by(secret).sandboxes.list()).rejects.toMatchObject({ code: 'unauthenticated' });
    expect(await by(next.secret).sandboxes.list()).toEqual([]);
    await client.keys.revoke(key.id);
    await expect(client.keys.get(key.id)).rejects.toMatchObject({ code: 'key_not_found', status: 404 });
  });

  it('may be for some sandboxes only', async () => {
    const { secret } = await client.keys.create({ scope: 'run', sandboxMetadata: { team: 'a' } });
    const other = await client.sandboxes.create();
    const restricted = by(secret);
    const made = await restricted.sandboxes.create();
    expect((await restricted.sandboxes.list()).map(({ id }) => id)).toEqual([made.id]);
    await expect(restricted.sandboxes.get(other.id)).rejects.toMatchObject({ code: 'sandbox_not_found' });
    await expect(restricted.keys.list()).rejects.toMatchObject({ code: 'permission_denied' });
  });
});
