/**
 * Firecracker alone, the least that a restore can cost: no jailer, no daemon, no code of ours but this. It is started where links to a
 * template's files are, and told to load them and to resume.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, link, mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { FIRECRACKER_FILES as FILES } from '@instavm/vmm/firecracker';

const POLL_MS = 1;
const SOCKET_DEADLINE_MS = 60_000;

/**
 * @param directory for its files, on the filesystem of the template
 * @returns ms from the start of the process to the answer that the guest runs
 */
export async function bareRestoreMs(binary: string, template: string, directory: string): Promise<number> {
  const own = await mkdtemp(join(directory, 'bare-'));
  try {
    for (const file of [FILES.base, FILES.memory, FILES.deviceState]) await link(join(template, file), join(own, file));
    await promisify(execFile)('cp', ['--sparse=always', '--reflink=auto', join(template, FILES.overlay), own]);
    const startedAt = performance.now();
    const child = spawn(binary, ['--api-sock', FILES.api], { cwd: own, env: {}, stdio: 'ignore' });
    const ended = once(child, 'exit');
    try {
      await appears(join(own, FILES.api));
      await put(join(own, FILES.api), '/snapshot/load', {
        snapshot_path: FILES.deviceState,
        mem_backend: { backend_type: 'File', backend_path: FILES.memory },
        resume_vm: true,
      });
      return performance.now() - startedAt;
    } finally {
      child.kill('SIGKILL');
      await ended;
    }
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}

async function appears(path: string): Promise<void> {
  for (const until = performance.now() + SOCKET_DEADLINE_MS; performance.now() < until; await sleep(POLL_MS)) {
    const there = await access(path).then(
      () => true,
      () => false,
    );
    if (there) return;
  }
  throw new Error(`Firecracker did not open ${path}`);
}

async function put(socketPath: string, path: string, body: object): Promise<void> {
  const asked = request({ socketPath, path, method: 'PUT', headers: { 'content-type': 'application/json' } });
  asked.end(JSON.stringify(body));
  const [answer] = await once(asked, 'response');
  let text = '';
  for await (const chunk of answer) text += chunk;
  if (answer.statusCode !== 204) throw new Error(`Firecracker: ${answer.statusCode} ${text}`);
}
