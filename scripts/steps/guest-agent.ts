/** Builds the guest agent, and skips even asking cargo when neither sources nor binary have changed since. */
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { GUEST_AGENT_PATH } from '@instavm/images';
import { AGENT_DIRECTORY, LOCAL_CACHE, ROOT } from './paths.ts';
import type { Progress } from './report.ts';
import { run } from './run.ts';

const STAMP = join(LOCAL_CACHE, 'guest-agent.stamp');

export async function buildGuestAgent(progress: Progress, signal: AbortSignal): Promise<string> {
  // Taken before the build: what is edited meanwhile belongs to the next one.
  const sources = await sourceFingerprint();
  const stamp = await readFile(STAMP, 'utf8').catch(() => '');
  if (stamp === `${sources}\n${await fileFingerprint(GUEST_AGENT_PATH)}`) return 'unchanged';

  progress('compiling (cargo build --release)');
  const target = join(AGENT_DIRECTORY, 'target');
  await run('cargo', ['build', '--release', '--locked', '--target-dir', target], {
    cwd: AGENT_DIRECTORY,
    signal,
    onLine: forwardCompiling(progress),
  });
  await mkdir(dirname(STAMP), { recursive: true });
  await writeFile(STAMP, `${sources}\n${await fileFingerprint(GUEST_AGENT_PATH)}`);
  const { size } = await stat(GUEST_AGENT_PATH);
  return `built, ${(size / 1e6).toFixed(1)} MB`;
}

/** Every input with size and modification time. */
async function sourceFingerprint(): Promise<string> {
  const paths = [join(ROOT, 'spec/agent.proto')];
  for (const entry of await readdir(AGENT_DIRECTORY, { withFileTypes: true })) {
    const path = join(AGENT_DIRECTORY, entry.name);
    if (entry.name === 'target') continue;
    if (entry.isFile()) paths.push(path);
    else {
      const nested = await readdir(path, { recursive: true, withFileTypes: true });
      paths.push(...nested.filter((file) => file.isFile()).map((file) => join(file.parentPath, file.name)));
    }
  }
  return (await Promise.all(paths.sort().map(fileFingerprint))).join('\n');
}

async function fileFingerprint(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  return found ? `${path} ${found.size} ${found.mtimeMs}` : `${path} absent`;
}

/** Says which crate cargo has come to, at most every other second. */
function forwardCompiling(progress: Progress): (line: string) => void {
  let lastAt = 0;
  let count = 0;
  return (line) => {
    if (!/^\s*Compiling /.test(line)) return;
    count += 1;
    if (Date.now() - lastAt < 2_000) return;
    lastAt = Date.now();
    progress(`compiling crate ${count}`);
  };
}
