/** Shares over HTTP. How the preview proxy sees them: `share-targets.test.ts`. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ADDRESSES, NOWHERE, ShareWorld } from './share-world.ts';

let world: ShareWorld;
beforeEach(async () => {
  world = await ShareWorld.open();
});
afterEach(() => world.close());

describe('shares over HTTP', () => {
  it('have one URL per port of a sandbox, by session and by VM', async () => {
    const call = await world.serve();
    const { id, incarnationId } = await world.sandbox();
    const { status, body } = await call('POST', '/v1/shares', { port: 8000, session_id: id });
    expect([status, body]).toEqual([
      200,
      {
        share_id: expect.stringMatching(/^shr[a-z2-7]{20}$/),
        url: `https://${body.share_id}.preview.test:8443`,
        port: 8000,
        is_public: false,
        rewrite_host: false,
        session_id: id,
        created_at: expect.any(String),
      },
    ]);
    expect((await call('POST', '/v1/shares', { port: 8000, vm_id: incarnationId })).body).toEqual(body);
    expect((await call('POST', '/v1/shares', { port: 8001, session_id: id })).body.url).not.toBe(body.url);
  });

  it('are of the VM when a session is named as well', async () => {
    const call = await world.serve();
    const [one, other] = [await world.sandbox(), await world.sandbox()];
    const both = { port: 1, vm_id: one.incarnationId, session_id: other.id };
    expect((await call('POST', '/v1/shares', both)).body.session_id).toBe(one.id);
    expect((await call('POST', '/v1/shares', { ...both, vm_id: null })).body.session_id).toBe(other.id);
  });

  it('become what a later request asks for, and stay as they are when it does not say', async () => {
    const call = await world.serve();
    const { id } = await world.sandbox();
    const visibility = async (fields: object) =>
      (await call('POST', '/v1/shares', { port: 80, session_id: id, ...fields })).body.is_public;
    expect(await visibility({ is_public: true })).toBe(true);
    expect(await visibility({})).toBe(true);
    expect(await visibility({ is_public: null })).toBe(true);
    expect(await visibility({ is_public: false })).toBe(false);
  });

  it('tell the program the name of visitors, or its own when that is asked for', async () => {
    const call = await world.serve();
    const { id } = await world.sandbox();
    const share = async (fields: object) =>
      (await call('POST', '/v1/shares', { port: 80, session_id: id, ...fields })).body;
    const { share_id, rewrite_host } = await share({ is_public: true });
    expect(rewrite_host).toBe(false);
    expect(await share({ rewrite_host: true })).toMatchObject({ is_public: true, rewrite_host: true });
    expect(await share({})).toMatchObject({ rewrite_host: true });
    const patch = (body: object) => call('PATCH', `/v1/shares/${share_id}`, body);
    expect((await patch({ is_public: false })).body).toMatchObject({ is_public: false, rewrite_host: true });
    expect((await patch({ rewrite_host: false })).body).toMatchObject({ is_public: false, rewrite_host: false });
    expect((await patch({ rewrite_host: null })).body.code).toBe('invalid_argument');
  });

  it('are read, listed, made public and private', async () => {
    const call = await world.serve();
    const [one, other] = [await world.sandbox(), await world.sandbox()];
    const first = (await call('POST', '/v1/shares', { port: 1, session_id: one.id })).body;
    const second = (await call('POST', '/v1/shares', { port: 2, session_id: other.id })).body;
    expect((await call('GET', `/v1/shares/${first.share_id}`)).body).toEqual(first);
    const listed = async (query = '') =>
      (await call('GET', `/v1/shares${query}`)).body.shares.map((share: { share_id: string }) => share.share_id);
    expect((await listed()).sort()).toEqual([first.share_id, second.share_id].sort());
    expect(await listed(`?session_id=${other.id}`)).toEqual([second.share_id]);
    const patch = async (body: object) => (await call('PATCH', `/v1/shares/${first.share_id}`, body)).body;
    expect(await patch({ is_public: true })).toEqual({ ...first, is_public: true });
    expect(await patch({ is_public: false })).toEqual(first);
  });

  it('are gone at once when they are revoked, which may be said twice; the port then gets another URL', async () => {
    const call = await world.serve();
    const { id } = await world.sandbox();
    const create = async () => (await call('POST', '/v1/shares', { port: 1, session_id: id })).body;
    const { share_id } = await create();
    const gone = { share_id, revoked: true };
    const path = `/v1/shares/${share_id}`;
    for (let round = 0; round < 2; round++) expect((await call('PATCH', path, { revoke: true })).body).toEqual(gone);
    expect((await call('DELETE', path)).body).toEqual(gone);
    for (const answer of [await call('GET', path), await call('PATCH', path, { is_public: true })])
      expect([answer.status, answer.body.code]).toEqual([404, 'share_not_found']);
    expect((await call('POST', `${path}/token`)).body.code).toBe('share_not_found');
    expect((await call('GET', '/v1/shares')).body.shares).toEqual([]);
    expect((await create()).share_id).not.toBe(share_id);
  });

  it('give links that open them for a while', async () => {
    const call = await world.serve();
    const { id } = await world.sandbox();
    const { share_id } = (await call('POST', '/v1/shares', { port: 1, session_id: id })).body;
    const link = async (body?: object) => (await call('POST', `/v1/shares/${share_id}/token`, body)).body;
    const secondsOf = ({ expires_at }: { expires_at: string }) => (Date.parse(expires_at) - Date.now()) / 1000;
    const hour = await link();
    expect(hour.url).toBe(`https://${share_id}.preview.test:8443/?${hour.link_id}=${hour.expires_at}`);
    expect(secondsOf(hour)).toBeGreaterThan(3_500);
    expect(secondsOf(await link({ ttl_seconds: 60 }))).toBeLessThanOrEqual(60);
    for (const ttl_seconds of [0, 1.5, 7 * 86_400 + 1])
      expect((await link({ ttl_seconds })).code).toBe('invalid_argument');
  });

  it('take a link back, and say so to who is in through it', async () => {
    const call = await world.serve();
    const { id } = await world.sandbox();
    const { share_id } = (await call('POST', '/v1/shares', { port: 1, session_id: id })).body;
    const path = `/v1/shares/${share_id}`;
    const told: string[] = [];
    const targets = world.targets({ get: () => Promise.reject(new Error('not asked for')) });
    world.shares.onWithdrawn((share, what) => told.push(share, what));
    const { link_id } = (await call('POST', `${path}/token`)).body;
    expect(await targets.isLinkRevoked(share_id, link_id)).toBe(false);
    for (let round = 0; round < 2; round++)
      expect(await call('DELETE', `${path}/links/${link_id}`)).toMatchObject({
        status: 200,
        body: { link_id, revoked: true },
      });
    expect(await targets.isLinkRevoked(share_id, link_id)).toBe(true);
    expect(told.slice(0, 2)).toEqual([share_id, link_id]);
    expect(await call('DELETE', `${path}/links/nonsense`)).toMatchObject({ body: { code: 'invalid_argument' } });
    await call('DELETE', path);
    expect(await call('DELETE', `${path}/links/${link_id}`)).toMatchObject({ body: { code: 'share_not_found' } });
  });

  it('are listed in pages', async () => {
    const call = await world.serve();
    const { id } = await world.sandbox();
    for (const port of [1, 2, 3]) await call('POST', '/v1/shares', { port, session_id: id });
    const page = async (query: string) => (await call('GET', `/v1/shares?${query}`)).body;
    const all = (await page('')).shares as { share_id: string }[];
    expect((await page('limit=2')).shares).toEqual(all.slice(0, 2));
    const [, second] = all;
    expect((await page(`limit=2&before=${second?.share_id}`)).shares).toEqual(all.slice(2));
    for (const wrong of ['limit=0', 'limit=1001', 'limit=x']) expect((await page(wrong)).code).toBe('invalid_argument');
    for (const nobodys of ['before=x', `before=${NOWHERE}`]) expect((await page(nobodys)).code).toBe('share_not_found');
  });

  it('are a thousand at most in an account, and those that are there can still be asked for and changed', async () => {
    const call = await world.serve();
    const { id } = await world.sandbox();
    for (let port = 1; port <= 1_000; port++) await world.shares.open(await world.storedOf(id), port);
    const body = { session_id: id, port: 1_001 };
    expect(await call('POST', '/v1/shares', body)).toMatchObject({ status: 429, body: { code: 'quota_exceeded' } });
    const there = await call('POST', '/v1/shares', { session_id: id, port: 1, is_public: true });
    expect(there).toMatchObject({ status: 200, body: { is_public: true } });
    await call('DELETE', `/v1/shares/${there.body.share_id}`);
    expect((await call('POST', '/v1/shares', body)).status).toBe(200);
  });

  it('are what app-url answers: a link for as long as the session lives, or the URL of what is public already', async () => {
    const call = await world.serve();
    const { id, incarnationId } = await world.sandbox();
    const { status, body } = await call('GET', `/v1/sessions/app-url/${id}?port=3000`);
    expect([status, body]).toEqual([
      200,
      {
        direct_url: expect.stringContaining(`https://${body.share_id}.preview.test:8443/?lnk`),
        url: body.direct_url,
        share_id: expect.any(String),
        is_public: false,
        port: 3000,
        session_id: id,
        vm_id: incarnationId,
        vm_ip: null,
        status: 'active',
        expires_in_seconds: expect.any(Number),
      },
    ]);
    expect(body.expires_in_seconds).toBeGreaterThan(90);
    expect(body.expires_in_seconds).toBeLessThanOrEqual(100);
    await call('PATCH', `/v1/shares/${body.share_id}`, { is_public: true });
    expect((await call('GET', `/v1/sessions/app-url/${id}?port=3000`)).body).toMatchObject({
      direct_url: `https://${body.share_id}.preview.test:8443`,
      is_public: true,
    });
    expect((await call('GET', `/v1/sessions/app-url/${id}`)).body.port).toBe(80);
    expect((await call('GET', `/v1/sessions/app-url/${id}?port=65536`)).body.code).toBe('invalid_argument');
  });

  it('exist while their sandbox does, suspended or not, and come back if that is started again', async () => {
    const call = await world.serve();
    const { id } = await world.sandbox();
    const body = { port: 1, session_id: id };
    const { share_id } = (await call('POST', '/v1/shares', body)).body;
    await world.become(id, 'suspended');
    expect((await call('POST', '/v1/shares', body)).body.share_id).toBe(share_id);
    await world.become(id, 'stopped');
    expect((await call('POST', '/v1/shares', body)).body).toMatchObject({ code: 'invalid_state' });
    expect((await call('GET', `/v1/shares/${share_id}`)).body.code).toBe('share_not_found');
    expect((await call('GET', '/v1/shares')).body.shares).toEqual([]);
    await world.become(id, 'running');
    expect((await call('GET', `/v1/shares/${share_id}`)).status).toBe(200);
    await world.become(id, 'failed');
    expect((await call('DELETE', `/v1/shares/${share_id}`)).status).toBe(200);
    await world.become(id, 'running');
    expect((await call('GET', `/v1/shares/${share_id}`)).status).toBe(404);
  });

  it("have a certificate authority that clients can ask for, unless the certificate is the operator's own", async () => {
    const asked = (await (await world.serve())('GET', '/v2/previews/ca')).body;
    expect(asked).toEqual({ domain: 'preview.test', certificate: 'PEM' });
    const own = await world.serve({ ...ADDRESSES, authority: undefined });
    expect(await own('GET', '/v2/previews/ca')).toMatchObject({ status: 403, body: { code: 'not_available' } });
  });

  it('belong to their account', async () => {
    const call = await world.serve();
    const { id, incarnationId } = await world.sandbox();
    const { share_id } = (await call('POST', '/v1/shares', { port: 1, session_id: id })).body;
    let stranger = '';
    await world.accounts.createWithKey('c@d', 'C', 'first', (given) => {
      stranger = given;
    });
    const path = `/v1/shares/${share_id}`;
    const refused = [
      await call('GET', path, undefined, stranger),
      await call('PATCH', path, { is_public: true }, stranger),
      await call('PATCH', path, { revoke: true }, stranger),
      await call('DELETE', path, undefined, stranger),
      await call('POST', `${path}/token`, undefined, stranger),
      await call('DELETE', `${path}/links/lnkaaaaaaaaaaaaaaaa`, undefined, stranger),
      await call('GET', `/v1/shares?before=${share_id}`, undefined, stranger),
      await call('POST', '/v1/shares', { port: 1, session_id: id }, stranger),
      await call('POST', '/v1/shares', { port: 1, vm_id: incarnationId }, stranger),
      await call('GET', `/v1/shares?session_id=${id}`, undefined, stranger),
      await call('GET', `/v1/sessions/app-url/${id}`, undefined, stranger),
    ];
    expect(refused.map(({ status }) => status)).toEqual(refused.map(() => 404));
    expect((await call('GET', '/v1/shares', undefined, stranger)).body.shares).toEqual([]);
    expect((await call('GET', path)).body.is_public).toBe(false);
    for (const method of ['GET', 'DELETE'] as const)
      expect((await call(method, path, undefined, 'x')).status).toBe(401);
  });

  it('name what is wrong with a request', async () => {
    const call = await world.serve();
    const { id } = await world.sandbox();
    const wrong: [object, string][] = [
      [{ session_id: id }, 'port'],
      [{ session_id: id, port: 0 }, 'port'],
      [{ session_id: id, port: 65_536 }, 'port'],
      [{ session_id: id, port: '80' }, 'port'],
      [{ port: 80 }, 'session_id'],
      [{ session_id: id, port: 80, is_public: 'yes' }, 'is_public'],
    ];
    for (const [body, field] of wrong) {
      const answer = await call('POST', '/v1/shares', body);
      expect([answer.status, answer.body.details.fields[0].path], field).toEqual([422, field]);
    }
    for (const body of [{}, { revoke: false }])
      expect((await call('PATCH', `/v1/shares/${NOWHERE}`, body)).body.code).toBe('invalid_argument');
    for (const name of [NOWHERE, 'x', '..%2f'])
      expect((await call('GET', `/v1/shares/${name}`)).body.code).toBe('share_not_found');
  });

  it('are refused with the setting to change where no previews are served, and can still be revoked', async () => {
    const { id } = await world.sandbox();
    const { share_id } = (await (await world.serve())('POST', '/v1/shares', { port: 1, session_id: id })).body;
    const off = await world.serve(null);
    const paths = ['/v2/previews/ca', `/v1/shares`, `/v1/shares/${share_id}`, `/v1/sessions/app-url/${id}`];
    const answers = await Promise.all(paths.map((path) => off('GET', path)));
    answers.push(await off('POST', '/v1/shares', { port: 1, session_id: id }));
    for (const { status, body } of answers) {
      expect([status, body.code]).toEqual([403, 'not_available']);
      expect(body.hint).toContain('INSTAVM_PREVIEW_LISTEN');
    }
    expect((await off('PATCH', `/v1/shares/${share_id}`, { revoke: true })).status).toBe(200);
  });
});
