/** Builds the guest agent, and skips even asking cargo when neither sources nor binary have changed since. */
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { GUEST_AGENT_PATH } from '@instavm/images';
import { AGENT_DIRECTORY, LOCAL_CACHE, ROOT } from './paths.ts';
import type { Progress } from './report.ts';
import { run } from './run.ts';

const STAMP = join(LOCAL_CACHE, 'guest-agent.stamp');

export async function buildGuestAgent(progress: Progress, signal: AbortSignal): Promise<string> {
  const before = await fingerprint();
  if (before !== undefined && (await readFile(STAMP, 'utf8').catch(() => '')) === before) return 'unchanged';

  progress('compiling (cargo build --release)');
  const target = join(AGENT_DIRECTORY, 'target');
  await run('cargo', ['build', '--release', '--locked', '--target-dir', target], {
    cwd: AGENT_DIRECTORY,
    signal,
    onLine: forwardCompiling(progress),
  });
  const after = await fingerprint();
  if (after === undefined) throw new Error(`cargo build succeeded without leaving ${GUEST_AGENT_PATH}`);
  await mkdir(dirname(STAMP), { recursive: true });
  await writeFile(STAMP, after);
  const { size } = await stat(GUEST_AGENT_PATH);
  return `built, ${(size / 1e6).toFixed(1)} MB`;
}

/** Every input and the binary with size and modification time; undefined when there is no binary. */
async function fingerprint(): Promise<string | undefined> {
  const binary = await stat(GUEST_AGENT_PATH).catch(() => undefined);
  if (!binary) return undefined;
  const lines = [`${GUEST_AGENT_PATH} ${binary.size} ${binary.mtimeMs}`];
  const inputs = ['spec/agent.proto'];
  for (const entry of await readdir(AGENT_DIRECTORY, { withFileTypes: true })) {
    if (entry.name === 'target') continue;
    if (entry.isFile()) inputs.push(`guest/agent/${entry.name}`);
    else {
      const nested = await readdir(join(AGENT_DIRECTORY, entry.name), { recursive: true, withFileTypes: true });
      inputs.push(...nested.filter((file) => file.isFile()).map((file) => join(file.parentPath, file.name)));
    }
  }
  for (const input of inputs.sort()) {
    const { size, mtimeMs } = await stat(resolve(ROOT, input));
    lines.push(`${input} ${size} ${mtimeMs}`);
  }
  return lines.join('\n');
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
