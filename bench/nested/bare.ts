/**
 * The floor of a restore under Firecracker: what a script of a few lines would do, and nothing more. A jail with links and a copy, the jailer,
 * one call that loads and resumes, the guest's vsock, the agent's first answer. No journal, no limits beyond the jailer's, no checks.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, link, mkdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { AgentClient, synchronize } from '@instavm/agent-client';
import type { Template } from '@instavm/core';
import type { FirecrackerBinaries } from '@instavm/vmm/firecracker';

const run = promisify(execFile);
const UID = 299_999;
const CGROUP = 'instavm-bench-bare';
const CONTROL_PORT = 10;
const POLL_MS = 2;
const ANSWER_MS = 60_000;
const ATTEMPT_MS = 3_000;

export class Bare {
  readonly #binaries: FirecrackerBinaries;
  readonly #template: Template;
  readonly #base: string;
  #made = 0;

  constructor(binaries: FirecrackerBinaries, template: Template, base: string) {
    this.#binaries = binaries;
    this.#template = template;
    this.#base = base;
  }

  /** @returns ms until the agent's first answer; what was made is gone afterwards */
  async restoreToFirstAnswer(): Promise<number> {
    const name = `bare-${this.#made++}`;
    const directory = join(this.#base, basename(this.#binaries.firecracker), name);
    const root = join(directory, 'root');
    const begun = performance.now();
    await mkdir(root, { recursive: true });
    for (const file of ['base.erofs', 'memory', 'state'])
      await link(join(this.#template.directory, file), join(root, file));
    const overlay = join(root, 'overlay.ext4');
    await run('cp', ['--sparse=always', '--reflink=auto', join(this.#template.directory, 'overlay.ext4'), overlay]);
    await chown(overlay, UID, UID);
    await chmod(overlay, 0o600);
    await started(this.#binaries.jailer, [
      ...['--id', name, '--exec-file', this.#binaries.firecracker, '--uid', String(UID), '--gid', String(UID)],
      ...['--chroot-base-dir', this.#base, '--new-pid-ns', '--cgroup-version', '2', '--parent-cgroup', CGROUP],
      ...['--cgroup', 'pids.max=64', '--', '--api-sock', 'api.sock'],
    ]);
    const api = await dial(join(root, 'api.sock'));
    await load(api);
    const agent = await AgentClient.open(await firstAnswer(join(root, 'vsock.sock')), ANSWER_MS);
    await agent.lifecycle.ping({}, { timeoutMs: ANSWER_MS });
    const ms = performance.now() - begun;
    agent.close();
    await this.#end(name, directory);
    return ms;
  }

  async #end(name: string, directory: string): Promise<void> {
    const cgroup = join('/sys/fs/cgroup', CGROUP, name);
    await writeFile(join(cgroup, 'cgroup.kill'), '1');
    while (!(await readFile(join(cgroup, 'cgroup.events'), 'utf8')).includes('populated 0')) await sleep(POLL_MS);
    await rmdir(cgroup);
    await rm(directory, { recursive: true });
  }

  close(): Promise<void> {
    return rmdir(join('/sys/fs/cgroup', CGROUP));
  }
}

/** Firecracker keeps the streams of the jailer, so the end of those is not waited for. */
async function started(program: string, args: readonly string[]): Promise<void> {
  const [code] = await once(spawn(program, args, { stdio: 'ignore' }), 'exit');
  if (code !== 0) throw new Error(`${program} ended with ${code}`);
}

/** As soon as somebody listens, unless it is given up. */
export async function dial(path: string, signal?: AbortSignal): Promise<Socket> {
  for (;;) {
    signal?.throwIfAborted();
    const socket = connect(path);
    const isOpen = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    if (isOpen) return socket;
    await sleep(POLL_MS);
  }
}

/** Has Firecracker load the template in its directory, and resume. @param socket of its API */
export async function load(socket: Socket): Promise<void> {
  const body = {
    snapshot_path: 'state',
    mem_backend: { backend_type: 'File', backend_path: 'memory' },
    resume_vm: true,
  };
  const headers = { 'content-type': 'application/json', connection: 'close' };
  const asked = request({ createConnection: () => socket, method: 'PUT', path: '/snapshot/load', headers });
  asked.end(JSON.stringify(body));
  const [answer] = await once(asked, 'response');
  let text = '';
  for await (const piece of answer) text += piece;
  if (answer.statusCode !== 204) throw new Error(`the bare restore failed: ${text}`);
}

/** The guest resets its connections of before; one that is too early is never answered, and the next is. */
async function firstAnswer(path: string): Promise<Socket> {
  for (;;) {
    const socket = await dial(path);
    socket.on('error', () => {});
    socket.write(`CONNECT ${CONTROL_PORT}\n`);
    const line = await Promise.race([once(socket, 'readable'), once(socket, 'close'), sleep(ATTEMPT_MS, [])]);
    if (line.length === 0 && socket.readableLength === 0) {
      socket.destroy();
      continue;
    }
    while (socket.readableLength > 0 && String(socket.read(1)) !== '\n');
    const isAnswered = await synchronize(socket, ATTEMPT_MS).then(
      () => true,
      () => false,
    );
    if (isAnswered) return socket;
    socket.destroy();
  }
}
