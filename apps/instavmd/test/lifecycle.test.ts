/** Suspending, resuming, saving, restoring and cloning over HTTP. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf, ExecSocket, stream } from './api.ts';
import { PtySocket } from './pty-socket.ts';

const UNKNOWN = 'snap_aaaaaaaaaaaaaaaaaaaa';
const POLICY = {
  allow_http: false,
  allow_https: true,
  allow_public_repos: false,
  allowed_domains: ['example.com'],
  allowed_cidrs: [],
};

describe('the lifecycle over HTTP', () => {
  let daemon: TestDaemon;
  let api: Api;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
  });
  afterAll(() => daemon.stop());

  const files = (): Promise<string[]> => readdir(join(daemon.dataDirectory, 'snapshots'));
  const post = (path: string, body: object = {}) => api.json('POST', path, body);
  const create = async (fields: object = {}): Promise<string> => (await post('/v2/sandboxes', fields)).body.id;
  const stateOf = async (id: string): Promise<string> => (await api.request('GET', `/v2/sandboxes/${id}`)).body.state;
  const end = (id: string) => api.request('DELETE', `/v2/sandboxes/${id}`);
  const vmOf = async (id: string): Promise<string> =>
    (await api.request('GET', `/v1/sessions/status/${id}`)).body.vm_id;

  describe('a suspended sandbox', () => {
    it('keeps its id and its files, gets a new incarnation, and its lease stands still', async () => {
      const id = await create({ ttl_seconds: 3_600 });
      await api.execute(id, 'echo kept > note');
      const before = (await api.request('GET', `/v2/sandboxes/${id}`)).body;
      const suspended = (await post(`/v2/sandboxes/${id}/suspend`)).body;
      expect(suspended).toMatchObject({
        id,
        state: 'suspended',
        expires_at: null,
        state_reason: 'suspended by request',
      });
      expect(suspended.lease_left_seconds).toBeGreaterThan(3_000);
      expect(await readdir(join(daemon.dataDirectory, 'run'))).toEqual([]);
      expect((await post(`/v2/sandboxes/${id}/suspend`)).status).toBe(200);
      const resumed = (await post(`/v2/sandboxes/${id}/resume`)).body;
      expect(resumed).toMatchObject({ id, state: 'running', lease_left_seconds: null });
      expect(resumed.incarnation_id).not.toBe(before.incarnation_id);
      expect(Date.parse(resumed.expires_at) - Date.now()).toBeGreaterThan(3_000_000);
      expect((await api.execute(id, 'cat note')).body.stdout).toBe('kept\n');
      // The memory that it was saved with is not kept twice.
      expect(await files()).toEqual([]);
      await end(id);
    });

    it('waits for the template that it was saved over when that was made again since, and says so', async () => {
      const id = await create();
      await api.execute(id, 'echo kept > note');
      await post(`/v2/sandboxes/${id}/suspend`);
      const [saved = ''] = await files();
      const path = join(daemon.dataDirectory, 'snapshots', saved, 'snapshot.json');
      const manifest = await readFile(path, 'utf8');
      await writeFile(path, JSON.stringify({ ...JSON.parse(manifest), templateBuildId: 'another' }));
      for (const answer of [await post(`/v2/sandboxes/${id}/resume`), await api.execute(id, 'true')]) {
        expect([answer.status, answer.body.code]).toEqual([409, 'snapshot_incompatible']);
        expect(answer.body.detail).toContain('another building of its template');
        expect(answer.body.hint).toContain('INSTAVM_CACHE_DIR');
      }
      expect(await stateOf(id)).toBe('suspended');
      await writeFile(path, manifest);
      expect((await api.execute(id, 'cat note')).body.stdout).toBe('kept\n');
      await end(id);
    });

    it('is woken by a command, a stream, a file and a terminal', async () => {
      const id = await create();
      await api.request('PUT', `/v2/sandboxes/${id}/files?path=/workspace/f`, { body: 'text' });
      const uses: (() => Promise<unknown>)[] = [
        async () => expect((await api.execute(id, 'cat f')).body.stdout).toBe('text'),
        async () => expect((await stream(api, id, { argv: ['cat', 'f'] })).stdout.toString()).toBe('text'),
        async () => expect((await api.request('GET', `/v2/sandboxes/${id}/files?path=/workspace/f`)).body).toBe('text'),
        async () => expect((await api.request('GET', `/v2/sandboxes/${id}/tar?path=/workspace`)).status).toBe(200),
        async () => expect((await post(`/v1/sessions/${id}/pty/sessions`, { command: 'cat f' })).status).toBe(200),
      ];
      for (const use of uses) {
        await post(`/v2/sandboxes/${id}/suspend`);
        expect(await stateOf(id)).toBe('suspended');
        await use();
        expect(await stateOf(id)).toBe('running');
      }
      await end(id);
    });

    it('stays so for who only looks, and is as good as alive for a session', async () => {
      const id = await create();
      await post(`/v2/sandboxes/${id}/suspend`);
      const status = (await api.request('GET', `/v1/sessions/status/${id}`)).body;
      expect(status).toMatchObject({ vm_alive: true, vm_status: 'suspended', expires_in_seconds: null });
      expect((await api.request('GET', `/v2/sandboxes/${id}/stats`)).body.code).toBe('sandbox_suspended');
      expect((await api.request('GET', `/v1/sessions/${id}/pty/sessions`)).body.code).toBe('sandbox_suspended');
      const all = (await api.request('GET', '/v1/vms/')).body;
      expect(all.find((vm: { session_id: string }) => vm.session_id === id).status).toBe('suspended');
      const running = (await api.request('GET', '/v1/vms')).body;
      expect(running.filter((vm: { session_id: string }) => vm.session_id === id)).toEqual([]);
      expect(await stateOf(id)).toBe('suspended');
      await end(id);
    });

    it('is resumed by name only when it says so', async () => {
      const id = await create({ auto_resume: false });
      await post(`/v2/sandboxes/${id}/suspend`);
      const refused = await api.execute(id, 'true');
      expect([refused.status, refused.body.code]).toEqual([409, 'sandbox_suspended']);
      expect((await api.request('GET', `/v1/sessions/status/${id}`)).body).toMatchObject({ vm_alive: false });
      await post(`/v2/sandboxes/${id}/resume`);
      expect((await api.execute(id, 'echo up')).body.stdout).toBe('up\n');
      await end(id);
    });

    it('keeps the viewers of its terminals, who wake it only by typing', async () => {
      const id = await create();
      await post(`/v1/sessions/${id}/pty/sessions`, { id: 'p' });
      const viewer = new PtySocket(api, id, 'p');
      await viewer.opened();
      await post(`/v2/sandboxes/${id}/suspend`);
      await sleep(300);
      expect([await stateOf(id), viewer.socket.readyState]).toEqual(['suspended', viewer.socket.OPEN]);
      viewer.type('x');
      await expect.poll(() => stateOf(id)).toBe('running');
      // No process of the fake outlives its microVM.
      await viewer.closed;
      expect(viewer.closeReason).toBe('pty_not_found');
      await end(id);
    });

    it('lets the viewers of its terminals go when it is ended', async () => {
      const id = await create();
      await post(`/v1/sessions/${id}/pty/sessions`, { id: 'p' });
      const viewer = new PtySocket(api, id, 'p');
      await viewer.opened();
      await post(`/v2/sandboxes/${id}/suspend`);
      await end(id);
      await viewer.closed;
      expect(viewer.closeReason).toBe('invalid_state');
    });

    it('leaves nothing when it is deleted, any number of times', async () => {
      const id = await create();
      await post(`/v2/sandboxes/${id}/suspend`);
      expect(await files()).toHaveLength(1);
      for (let time = 0; time < 2; time++) expect((await end(id)).body.state).toBe('stopped');
      expect(await files()).toEqual([]);
      const late = await post(`/v2/sandboxes/${id}/resume`);
      expect([late.status, late.body.code]).toEqual([409, 'invalid_state']);
    });
  });

  describe('without anyone asking', () => {
    it('an idle sandbox is suspended, and one that is used is not', async () => {
      const [idle, used] = await Promise.all([
        create({ idle_suspend_seconds: 1 }),
        create({ idle_suspend_seconds: 1 }),
      ]);
      const exec = new ExecSocket(api, used);
      await exec.start({ argv: ['sleep', '300'] });
      // It may have been suspended before, and was woken by this then.
      await expect.poll(() => exec.frames).toMatchObject([{ type: 'started' }]);
      await expect.poll(() => stateOf(idle)).toBe('suspended');
      expect(await stateOf(used)).toBe('running');
      exec.socket.close();
      await expect.poll(() => stateOf(used)).toBe('suspended');
      for (const id of [idle, used]) await end(id);
    });
  });

  describe('a VM of the contract', () => {
    it('is suspended and resumed under a new id, and found under the old one', async () => {
      const { body: made } = await post('/v1/vms?wait=true', { auto_resume: true, vm_lifetime_seconds: 60 });
      expect((await post(`/v1/vms/${made.vm_id}/suspend`)).body.status).toBe('suspended');
      const { body: resumed } = await post(`/v1/vms/${made.vm_id}/resume?wait=true`);
      expect(resumed).toMatchObject({ status: 'active', session_id: made.session_id });
      expect(resumed.vm_id).not.toBe(made.vm_id);
      expect((await api.request('GET', `/v1/vms/${made.vm_id}`)).body.vm_id).toBe(resumed.vm_id);
      await api.request('DELETE', `/v1/vms/${made.vm_id}`);
    });

    it('is an error for commands while suspended, unless it has auto_resume', async () => {
      const { body: vm } = await post('/v1/vms');
      await post(`/v1/vms/${vm.vm_id}/suspend`);
      expect((await api.execute(vm.session_id, 'true')).status).toBe(409);
      await api.json('PATCH', `/v1/vms/${vm.vm_id}`, { auto_resume: true });
      expect((await api.execute(vm.session_id, 'true')).body.exit_code).toBe(0);
      await end(vm.session_id);
    });

    it('takes changes of what is left to the server, and refuses others by name', async () => {
      const { body: vm } = await post('/v1/vms');
      const change = { auto_suspend: true, auto_resume: true, snapshot_on_terminate: true, snapshot_name: 'last' };
      expect((await api.json('PATCH', `/v1/vms/${vm.vm_id}`, change)).body).toMatchObject(change);
      const refused = await api.json('PATCH', `/v1/vms/${vm.vm_id}`, { memory_mb: 1024 });
      expect([refused.status, refused.body.detail]).toEqual([403, expect.stringContaining('memory_mb')]);
      const without = { snapshot_on_terminate: false };
      const changed = await api.json('PATCH', `/v1/vms/${vm.vm_id}`, without);
      expect(changed.body).toMatchObject({ ...without, snapshot_name: null, auto_suspend: true });
      await end(vm.session_id);
    });

    it('passes staged variables to the commands from then on', async () => {
      const { body: vm } = await post('/v1/vms', { env: { A: 'a' } });
      const entries = [{ env_name: 'B', value: 'b c' }];
      expect((await post(`/v1/vms/${vm.vm_id}/stage-env`, { entries })).body.success).toBe(true);
      expect((await api.execute(vm.session_id, 'echo "$A-$B"')).body.stdout).toBe('a-b c\n');
      const bad = await post(`/v1/vms/${vm.vm_id}/stage-env`, { entries: [{ env_name: 'not a name', value: '' }] });
      expect(bad.status).toBe(422);
      await end(vm.session_id);
    });
  });

  describe('a snapshot', () => {
    it('is restored by its id alone, with everything that its source had, policy included', async () => {
      const wanted = { vm_lifetime_seconds: 7_777, memory_mb: 256, env: { A: 'b' }, metadata: { team: 'x' } };
      const { body: vm } = await post('/v1/vms', wanted);
      await post(`/v1/egress/vm/${vm.vm_id}`, POLICY);
      await api.execute(vm.session_id, 'echo data > file');
      const { body: made } = await post(`/v1/vms/${vm.vm_id}/snapshot?wait=true`, { name: 'sandbox-abc' });
      expect(made).toMatchObject({ id: made.snapshot_id, name: 'sandbox-abc', status: 'ready', type: 'user' });
      await api.execute(vm.session_id, 'echo changed > file');
      await api.json('POST', '/kill', { session_id: vm.session_id });

      const { status, body: copy } = await post('/v1/vms?wait=true', { snapshot_id: made.id });
      expect(status).toBe(200);
      expect(copy).toMatchObject({ status: 'active', memory_mb: 256, metadata: { team: 'x' }, snapshot_id: made.id });
      expect(copy.session_id).not.toBe(vm.session_id);
      expect((await api.request('GET', `/v1/egress/session/${copy.session_id}`)).body).toMatchObject(POLICY);
      expect((await api.execute(copy.session_id, 'cat file; echo $A')).body.stdout).toBe('data\nb\n');
      const left = (await api.request('GET', `/v1/sessions/status/${copy.session_id}`)).body.expires_in_seconds;
      expect(left).toBeGreaterThan(7_000);
      // Any number of times, and with another lifetime or environment where one is given.
      const other = (await post('/v2/sandboxes', { snapshot_id: made.id, ttl_seconds: 60, env: { B: 'c' } })).body;
      expect(other).toMatchObject({ state: 'running', ttl_seconds: 60, memory_mb: 256 });
      expect((await api.execute(other.id, 'cat file; echo $A$B')).body.stdout).toBe('data\nbc\n');
      for (const id of [copy.session_id, other.id]) await end(id);
      expect((await api.request('DELETE', `/v1/snapshots/${made.id}`)).status).toBe(200);
      expect(await files()).toEqual([]);
    });

    it('is listed, got, and gone when it is deleted', async () => {
      const id = await create();
      const { body: made } = await post(`/v2/sandboxes/${id}/snapshots`, { name: 'mine' });
      expect((await api.request('GET', '/v1/snapshots')).body[0]).toMatchObject({ id: made.id, name: 'mine' });
      expect((await api.request('GET', '/v1/snapshots?type=system')).body).toEqual([]);
      expect((await api.request('GET', '/v2/snapshots')).body.snapshots[0].id).toBe(made.id);
      expect((await api.request('GET', `/v1/snapshots/${made.id}`)).body.status).toBe('ready');
      expect((await api.request('DELETE', `/v2/snapshots/${made.id}`)).status).toBe(200);
      for (const gone of [made.id, UNKNOWN, '..%2f..', 'nonsense']) {
        const answer = await api.request('GET', `/v1/snapshots/${gone}`);
        expect([gone, answer.status, answer.body.code]).toEqual([gone, 404, 'snapshot_not_found']);
        expect((await post('/v1/vms', { snapshot_id: decodeURIComponent(gone) })).status).toBe(404);
      }
      await end(id);
    });

    it('answers at once when nobody waits, and is ready soon', async () => {
      const id = await create();
      const vm = await vmOf(id);
      const { body: begun } = await post(`/v1/vms/${vm}/snapshot?wait=false`);
      expect(begun).toMatchObject({ status: 'building', size_bytes: 0 });
      const early = await post('/v1/vms', { snapshot_id: begun.id });
      expect([200, 409]).toContain(early.status);
      if (early.status === 409) expect(early.body.code).toBe('snapshot_not_ready');
      else await end(early.body.session_id);
      const status = async () => (await api.request('GET', `/v1/snapshots/${begun.id}`)).body.status;
      await expect.poll(status).toBe('ready');
      await api.request('DELETE', `/v1/snapshots/${begun.id}`);
      await end(id);
    });

    it('is taken of a suspended sandbox too, and outlives it', async () => {
      const id = await create();
      await api.execute(id, 'echo asleep > f');
      await post(`/v2/sandboxes/${id}/suspend`);
      const { body: made } = await post(`/v2/sandboxes/${id}/snapshots`, {});
      expect(await stateOf(id)).toBe('suspended');
      expect(await files()).toHaveLength(1);
      await end(id);
      const copy = await create({ snapshot_id: made.id });
      expect((await api.execute(copy, 'cat f')).body.stdout).toBe('asleep\n');
      await end(copy);
      await api.request('DELETE', `/v2/snapshots/${made.id}`);
      expect(await files()).toEqual([]);
    });

    it('keeps its size', async () => {
      const id = await create({ memory_mb: 256 });
      const { body: made } = await post(`/v2/sandboxes/${id}/snapshots`, {});
      expect((await post('/v1/vms', { snapshot_id: made.id, memory_mb: 2048 })).status).toBe(422);
      expect((await post('/v2/sandboxes', { snapshot_id: made.id, vcpu_count: 1 })).status).toBe(422);
      await api.request('DELETE', `/v2/snapshots/${made.id}`);
      await end(id);
    });

    it('is kept at the end of the lifetime of a VM that asks for it, and of none of its copies', async () => {
      const wanted = { snapshot_on_terminate: true, snapshot_name: 'at-the-end', vm_lifetime_seconds: 3_600 };
      const { body: vm } = await post('/v1/vms', wanted);
      expect(vm).toMatchObject({ snapshot_on_terminate: true, snapshot_name: 'at-the-end' });
      const { body: copy } = await post(`/v1/vms/${vm.vm_id}/clone`);
      expect(copy).toMatchObject({ snapshot_on_terminate: false, snapshot_name: null });
      for (const id of [vm.session_id, copy.session_id]) await end(id);
      expect((await api.request('GET', '/v1/snapshots')).body).toEqual([]);
    });

    it('cannot be taken of what has ended, nor built from an image yet', async () => {
      const id = await create();
      const vm = await vmOf(id);
      await end(id);
      for (const path of [`/v1/vms/${vm}/snapshot`, `/v1/vms/${vm}/suspend`, `/v1/vms/${vm}/clone`]) {
        const answer = await post(path);
        expect([path, answer.status, answer.body.code]).toEqual([path, 409, 'invalid_state']);
      }
      const built = await post('/v1/snapshots', { oci_image: 'debian' });
      expect([built.status, built.body.code]).toEqual([403, 'not_available']);
    });
  });

  describe('a clone', () => {
    it('has what its source has, is another, and leaves no snapshot', async () => {
      const { body: vm } = await post('/v1/vms', { metadata: { a: 1 } });
      await post(`/v1/egress/vm/${vm.vm_id}`, POLICY);
      await api.execute(vm.session_id, 'echo shared > f');
      const { body: clone } = await post(`/v1/vms/${vm.vm_id}/clone?wait=true`, {});
      expect(clone).toMatchObject({ status: 'active', snapshot_id: null, snapshot_deleted: true, metadata: { a: 1 } });
      expect(clone.session_id).not.toBe(vm.session_id);
      await api.execute(clone.session_id, 'echo mine >> f');
      expect((await api.execute(vm.session_id, 'cat f')).body.stdout).toBe('shared\n');
      expect((await api.execute(clone.session_id, 'cat f')).body.stdout).toBe('shared\nmine\n');
      expect((await api.request('GET', `/v1/egress/vm/${clone.vm_id}`)).body).toMatchObject(POLICY);
      expect([(await api.request('GET', '/v1/snapshots')).body, await files()]).toEqual([[], []]);
      for (const id of [vm.session_id, clone.session_id]) await end(id);
    });

    it('keeps the snapshot that was given a name', async () => {
      const { body: vm } = await post('/v1/vms');
      const { body: clone } = await post(`/v1/vms/${vm.vm_id}/clone`, { snapshot_name: 'base' });
      const kept = (await api.request('GET', `/v1/snapshots/${clone.snapshot_id}`)).body;
      expect([kept.name, clone.snapshot_deleted]).toEqual(['base', false]);
      await api.request('DELETE', `/v1/snapshots/${clone.snapshot_id}`);
      for (const id of [vm.session_id, clone.session_id]) await end(id);
    });

    it('is made several times at once', async () => {
      const id = await create();
      await api.execute(id, 'echo one > f');
      const { status, body } = await post(`/v2/sandboxes/${id}/fork`, { count: 4, env: { WHO: 'fork' } });
      expect([status, body.snapshot_id]).toEqual([201, null]);
      const ids: string[] = body.sandboxes.map((sandbox: { id: string }) => sandbox.id);
      expect(new Set([id, ...ids]).size).toBe(5);
      const answers = await Promise.all(
        ids.map(async (each) => (await api.execute(each, 'cat f; echo $WHO')).body.stdout),
      );
      expect(answers).toEqual(Array(4).fill('one\nfork\n'));
      await Promise.all([id, ...ids].map(end));
      expect(await files()).toEqual([]);
    });
  });
});

describe('a host without room', () => {
  it('refuses with the time after which to ask again, and goes on with what it has', async () => {
    const daemon = await startTestDaemon({ vmm: 'fake', env: { INSTAVM_MEMORY_RESERVE_MB: '100000000' } });
    const { status, body, headers } = await apiOf(daemon).json('POST', '/v2/sandboxes', {});
    expect([status, body.code, body.retryable]).toEqual([503, 'capacity_unavailable', 'yes']);
    expect(body.details.retryAfterMs).toBeGreaterThan(0);
    expect(Number(headers.get('retry-after'))).toBe(Math.ceil(body.details.retryAfterMs / 1000));
    expect((await apiOf(daemon).request('GET', '/v2/sandboxes')).body.sandboxes).toEqual([]);
    await daemon.stop();
  });
});
