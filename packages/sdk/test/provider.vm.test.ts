/** The Agents SDK provider in a real microVM, driven by the SDK with a scripted model. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { run, setTraceProcessors } from '@openai/agents';
import { dir, file, localDir, localFile, Manifest, SandboxAgent, s3Mount } from '@openai/agents/sandbox';
import { assistantMessage, functionCall, modelResponder, ScriptedModel } from '@openai/agents/testing';
import { InstaVM } from 'instavm';
import { InstaVMSandboxClient, type InstaVMSandboxSession } from 'instavm/openai-agents';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

setTraceProcessors([]);

let daemon: TestDaemon;
let provider: InstaVMSandboxClient;
let session: InstaVMSandboxSession;
let hostDirectory: string;

beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'qemu' });
  provider = new InstaVMSandboxClient({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  hostDirectory = await mkdtemp(join(tmpdir(), 'instavm-sdk-'));
  const manifest = new Manifest({
    entries: {
      'a.txt': file({ content: 'alpha\n' }),
      bin: file({ content: new Uint8Array([0, 255]), permissions: 0o600 }),
      d: dir({ children: { 'b.txt': file({ content: 'beta' }), empty: dir({}) } }),
    },
    environment: { MODE: 'manifest' },
    users: ['ada'],
  });
  session = await provider.create({ manifest, options: { env: { MODE: 'option', OTHER: 'kept' }, timeout: 3600 } });
});
afterAll(async () => {
  await session?.close();
  await rm(hostDirectory, { recursive: true, force: true });
  await daemon?.stop();
});

const exec = (cmd: string, more: object = {}) => session.exec({ cmd, yieldTimeMs: 30_000, ...more });

describe('a manifest', () => {
  it('is there with contents, permissions, directories and environment', async () => {
    expect((await exec('cat a.txt d/b.txt; stat -c %a bin; ls -d d/empty')).stdout).toBe('alpha\nbeta600\nd/empty\n');
    expect(await session.readFile({ path: 'bin' })).toEqual(Buffer.from([0, 255]));
    expect((await exec('echo $MODE $OTHER')).stdout).toBe('manifest kept\n');
  });

  it('takes local files and directories, and refuses a link in them', async () => {
    await mkdir(join(hostDirectory, 'tree'));
    await writeFile(join(hostDirectory, 'tree/f'), 'in tree');
    await writeFile(join(hostDirectory, 'one'), 'alone');
    const grants = [{ path: '/grant', hostPath: hostDirectory }];
    const entries = {
      l: localFile({ src: join(hostDirectory, 'one') }),
      t: localDir({ src: join(hostDirectory, 'tree') }),
    };
    const local = await provider.create({ manifest: new Manifest({ entries, extraPathGrants: grants }) });
    expect((await local.exec({ cmd: 'cat l t/f' })).stdout).toBe('alonein tree');
    await local.close();
    await symlink('/etc/passwd', join(hostDirectory, 'tree/link'));
    await expect(provider.create({ manifest: new Manifest({ entries, extraPathGrants: grants }) })).rejects.toThrow(
      /symbolic link/,
    );
  });

  it('is refused before a sandbox is made when it asks for a mount', async () => {
    const before = await new InstaVM(access()).sandboxes.list();
    const manifest = new Manifest({ entries: { m: s3Mount({ bucket: 'b' }) } });
    await expect(provider.create({ manifest })).rejects.toThrow(/mounts are not available/);
    expect(await new InstaVM(access()).sandboxes.list()).toHaveLength(before.length);
  });
});

describe('a command', () => {
  it('answers with the text that models know', async () => {
    const text = await session.execCommand({ cmd: 'echo out; echo err >&2; exit 3' });
    expect(text).toMatch(
      /^Chunk ID: [0-9a-f]{6}\nWall time: [\d.]+ seconds\nProcess exited with code 3\nOutput:\nout\nerr\n?$/,
    );
  });

  it('that is slow is left running, polled and ended', async () => {
    const first = await exec('echo begun; sleep 2; echo done; exit 4', { yieldTimeMs: 300 });
    expect(first.exitCode).toBeUndefined();
    const last = await session.writeStdin({ sessionId: first.sessionId ?? 0, yieldTimeMs: 30_000 });
    expect(last).toContain('Process exited with code 4');
    expect(first.output + last).toMatch(/begun\n[\s\S]*done\n/);
    expect(await session.writeStdin({ sessionId: first.sessionId ?? 0 })).toContain('session not found');
  });

  it('gets a terminal when it asks for one, and its exit ends it', async () => {
    const first = await exec("test -t 0 && read -p 'name? ' n && echo hi $n && exit 5", {
      tty: true,
      yieldTimeMs: 1_000,
    });
    const sessionId = first.sessionId ?? 0;
    let asked = first.output;
    for (let looks = 0; looks < 20 && !asked.includes('name?'); looks++)
      asked += await session.writeStdin({ sessionId });
    expect(asked).toContain('name?');
    const last = await session.writeStdin({ sessionId, chars: 'Ada\n', yieldTimeMs: 30_000 });
    expect(last).toContain('hi Ada');
    expect(last).toContain('Process exited with code 5');
  });

  it('is interrupted by Ctrl-C in a terminal', async () => {
    const first = await exec('sleep 1000', { tty: true, yieldTimeMs: 500 });
    expect(
      await session.writeStdin({ sessionId: first.sessionId ?? 0, chars: '\u0003', yieldTimeMs: 30_000 }),
    ).toContain('Process exited with code 130');
  });

  it('runs as the user it is asked for', async () => {
    expect((await exec('id -un; touch mine && stat -c %U mine', { runAs: 'ada' })).stdout).toBe('ada\nada\n');
    const failed = await session.exec({ cmd: 'true', runAs: 'nobody-here' }).catch((error: unknown) => error);
    expect(String(failed)).toContain('nobody-here');
  });

  it('keeps megabytes, and is cut only when asked', async () => {
    const whole = await exec('head -c 3000000 /dev/zero | tr "\\0" x');
    expect(whole.output).toHaveLength(3_000_000);
    const cut = await exec('seq 10000', { maxOutputTokens: 50 });
    expect(cut.originalTokenCount).toBeGreaterThan(10_000);
    expect(cut.output).toContain('tokens truncated');
  });
});

describe('files', () => {
  it('are listed, probed and looked at', async () => {
    expect(await session.listDir({ path: 'd' })).toEqual([
      { name: 'b.txt', path: 'd/b.txt', type: 'file' },
      { name: 'empty', path: 'd/empty', type: 'dir' },
    ]);
    expect([
      await session.pathExists('a.txt'),
      await session.pathExists('nope'),
      await session.directoryExists('d'),
    ]).toEqual([true, false, true]);
    await expect(session.readFile({ path: 'nope' })).rejects.toMatchObject({ code: 'workspace_read_not_found' });
    await expect(session.viewImage({ path: 'a.txt' })).rejects.toThrow(/unsupported image format/i);
  });

  it('do not leave the workspace, not through links either', async () => {
    await exec('ln -sfn /etc out && ln -sf /etc/passwd leak');
    for (const path of ['out/passwd', 'leak', '../etc/passwd', '/etc/passwd']) {
      await expect(session.readFile({ path }), path).rejects.toThrow();
    }
    await expect(
      session.createEditor().createFile({ type: 'create_file', path: 'out/x', diff: '+x\n' }),
    ).rejects.toThrow(/out of the workspace/);
  });

  it('go out as a tar when something is ephemeral, come back, and a bad archive changes nothing', async () => {
    await session.materializeEntry({ path: 'passing', entry: file({ content: 'x', ephemeral: true }) });
    const archive = await session.persistWorkspace();
    await exec('rm -rf a.txt d; touch later');
    await session.hydrateWorkspace(archive);
    expect((await exec('cat a.txt; ls later passing')).stdout).toBe('alpha\n');
    await expect(
      session.hydrateWorkspace(Buffer.from('no tar at all, but long enough to be one'.repeat(40))),
    ).rejects.toThrow();
    expect((await exec('cat a.txt')).stdout).toBe('alpha\n');
  });
});

describe('a session', () => {
  it('is stored without the key, found while it lives, and made again when it is gone', async () => {
    const own = await provider.create({ manifest: new Manifest({ entries: { 'a.txt': file({ content: 'alpha' }) } }) });
    await own.exec({ cmd: 'touch kept' });
    const record = JSON.stringify(await provider.serializeSessionState(own.state));
    expect(record).not.toContain(daemon.apiKey);
    const again = await provider.resume(await provider.deserializeSessionState(JSON.parse(record)));
    expect((await again.exec({ cmd: 'ls' })).stdout).toBe('a.txt\nkept\n');
    await provider.delete(again.state);
    expect(await again.running()).toBe(false);
    const fresh = await provider.resume(await provider.deserializeSessionState(JSON.parse(record)));
    expect((await fresh.exec({ cmd: 'ls' })).stdout).toBe('a.txt\n');
    await Promise.all([fresh.shutdown(), fresh.delete(), fresh.close()]);
  });

  it('goes out as a snapshot of everything, and comes back in another sandbox with its memory', async () => {
    const own = await provider.create({ manifest: new Manifest({ entries: { 'a.txt': file({ content: 'alpha' }) } }) });
    await own.exec({ cmd: 'echo in memory > /dev/shm/kept; apt-mark showmanual | wc -l > /root/outside' });
    const before = own.state.sandboxId;
    const archive = await own.persistWorkspace();
    expect(Buffer.from(archive).toString()).toMatch(/^__INSTAVM_SNAPSHOT__\{"snapshot_id":"snap_[a-z2-7]{20}"\}$/);
    await own.exec({ cmd: 'rm a.txt /dev/shm/kept; touch later' });
    await own.hydrateWorkspace(archive);
    expect(own.state.sandboxId).not.toBe(before);
    expect((await own.exec({ cmd: 'ls; cat /dev/shm/kept; test -s /root/outside' })).stdout).toBe('a.txt\nin memory\n');
    const client = new InstaVM(access());
    expect((await client.sandboxes.attach(before).info()).state).toBe('stopped');
    await own.close();
  });

  it('that was closed at the end of a run goes on where it ended, and a suspended one where it was', async () => {
    const own = await provider.create({});
    await own.exec({ cmd: 'echo run > from-the-run' });
    const record = await provider.serializeSessionState(own.state, { willCloseAfterSerialize: true });
    await own.close();
    const again = await provider.resume(await provider.deserializeSessionState(JSON.parse(JSON.stringify(record))));
    expect((await again.exec({ cmd: 'cat from-the-run' })).stdout).toBe('run\n');
    const shell = await again.exec({ cmd: 'x=kept; read line; echo "$x $line"; exit 6', tty: true, yieldTimeMs: 500 });
    await again.sandbox.suspend();
    expect(await again.running()).toBe(true);
    const told = await again.writeStdin({ sessionId: shell.sessionId ?? 0, chars: 'woken\n', yieldTimeMs: 30_000 });
    expect(told).toContain('kept woken');
    expect(told).toContain('exited with code 6');
    await again.close();
  });

  it('says plainly what is not there yet', async () => {
    await expect(provider.create({ snapshot: { type: 'local' } as never })).rejects.toThrow(/on the server/);
    await session.setEgressPolicy({
      allowHttp: false,
      allowHttps: true,
      allowPackageManagers: false,
      allowedDomains: ['example.org'],
      allowedCidrs: [],
    });
    expect((await session.getEgressPolicy()).allowedDomains).toEqual(['example.org']);
  });
});

describe('a run', () => {
  it('executes in parallel, patches, looks at an image and answers', async () => {
    const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
    const model = new ScriptedModel([
      [
        functionCall('exec_command', { cmd: 'cat a.txt' }, { callId: 'c1' }),
        functionCall('exec_command', { cmd: `echo ${png} | base64 -d > dot.png; exit 2` }, { callId: 'c2' }),
      ],
      modelResponder(() => [
        {
          type: 'apply_patch_call',
          callId: 'p1',
          status: 'completed',
          operation: { type: 'update_file', path: 'a.txt', diff: '@@\n-alpha\n+omega\n' },
        },
      ]),
      [
        functionCall('exec_command', { cmd: 'cat a.txt' }, { callId: 'c3' }),
        functionCall('view_image', { path: 'dot.png' }, { callId: 'i1' }),
      ],
      [assistantMessage('done')],
    ]);
    const agent = new SandboxAgent({
      name: 'A',
      model,
      instructions: 'Follow the script.',
      defaultManifest: new Manifest({ entries: { 'a.txt': file({ content: 'alpha\n' }) } }),
    });
    const before = (await new InstaVM(access()).sandboxes.list()).filter(({ state }) => state === 'running').length;
    const result = await run(agent, 'go', { sandbox: { client: provider } });
    expect(result.finalOutput).toBe('done');
    const told = JSON.stringify(result.history);
    for (const part of ['alpha', 'exited with code 2', 'omega', 'image/png']) expect(told).toContain(part);
    const after = (await new InstaVM(access()).sandboxes.list()).filter(({ state }) => state === 'running').length;
    expect(after).toBe(before);
  });
});

const access = () => ({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
