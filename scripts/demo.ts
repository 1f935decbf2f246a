/**
 * `npm run demo`: sets up, starts a daemon of its own, runs the announcement's example through the TypeScript and the Python
 * provider, shows every tool call with its real output, opens a preview with either, says where the time went, and leaves nothing running.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type DemoDaemon, startDemoDaemon } from './demo/daemon.ts';
import { type ModelEndpoint, startModelEndpoint, type ToolEvent } from './demo/model-endpoint.ts';
import { ROOT } from './steps/paths.ts';
import { pythonPath } from './steps/python-environments.ts';
import { setup } from './steps/setup.ts';

const OPENAI_BASE_URL = 'https://api.openai.com/v1';

type Example = { readonly title: string; readonly command: string; readonly args: readonly string[] };

await setup({ python: true });

const apiKey = process.env.OPENAI_API_KEY;
const upstream = apiKey ? { baseUrl: process.env.OPENAI_BASE_URL ?? OPENAI_BASE_URL, apiKey } : undefined;
const examples: Example[] = [
  {
    title: 'TypeScript: examples/data-analyst.ts',
    command: process.execPath,
    args: ['--conditions=instavm-source', 'examples/data-analyst.ts'],
  },
  { title: 'Python: examples/data_analyst.py', command: pythonPath('current'), args: ['examples/data_analyst.py'] },
  {
    title: 'A preview, verified, TypeScript: scripts/demo/preview.ts',
    command: process.execPath,
    args: ['--conditions=instavm-source', 'scripts/demo/preview.ts'],
  },
  {
    title: 'A preview, verified, Python: scripts/demo/preview.py',
    command: pythonPath('current'),
    args: ['scripts/demo/preview.py'],
  },
];

const dataDirectory = await mkdtemp(join(tmpdir(), 'instavm-demo-'));
const running = new Set<ChildProcess>();
let failed = false;
// From before the daemon's start on: it is not in the terminal's foreground group, and would be left.
const stopping = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    failed = true;
    stopping.abort(new Error(`ended by ${signal}`));
    for (const child of running) child.kill('SIGTERM');
  });
let daemon: DemoDaemon | undefined;
let model: ModelEndpoint | undefined;
try {
  console.log('Starting the daemon …');
  daemon = await startDemoDaemon(dataDirectory, stopping.signal);
  model = await startModelEndpoint(upstream);
  console.log(`Sandboxes: ${daemon.description}`);
  console.log(
    upstream === undefined
      ? 'Model: SCRIPTED, because OPENAI_API_KEY is not set. It only chooses the next step; every tool call below does real work in the guest.'
      : `Model: the real one, through ${upstream.baseUrl}`,
  );
  for (const example of examples) {
    if (!failed) failed = !(await runExample(example, daemon, model));
  }
} catch (error) {
  if (error !== stopping.signal.reason) throw error;
} finally {
  await model?.close();
  await daemon?.stop();
  await rm(dataDirectory, { recursive: true, force: true });
}
console.log(failed ? '\nThe demo failed; see above.' : '\nNothing is left running. Next: npm start, and README.md.');
process.exitCode = failed ? 1 : 0;

async function runExample(
  { title, command, args }: Example,
  daemon: DemoDaemon,
  model: ModelEndpoint,
): Promise<boolean> {
  console.log(`\n━━ ${title} ${'━'.repeat(Math.max(0, 90 - title.length))}`);
  daemon.timings.reset();
  model.begin(show);
  const started = performance.now();
  const key = (await readFile(daemon.adminKeyPath, 'utf8')).trim();
  const child = spawn(command, args, {
    cwd: ROOT,
    env: {
      ...process.env,
      INSTAVM_BASE_URL: daemon.url,
      INSTAVM_API_KEY: key,
      ...trusting(daemon, key),
      OPENAI_BASE_URL: model.url,
      OPENAI_API_KEY: apiKey ?? 'scripted',
      OPENAI_AGENTS_DISABLE_TRACING: '1',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.add(child);
  let answer = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    answer += text;
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  running.delete(child);
  console.log(`\n  answer\n${indented(answer.trimEnd())}`);
  const total = performance.now() - started;
  console.log(`\n  time  ${daemon.timings.describe(total)}`);
  return code === 0;
}

/** What `eval "$(instavm ca path --print-env)"` sets: programs trust the previews of this daemon besides what they trusted before. */
function trusting(daemon: DemoDaemon, key: string): NodeJS.ProcessEnv {
  const env = { ...process.env, INSTAVM_BASE_URL: daemon.url, INSTAVM_API_KEY: key, XDG_CONFIG_HOME: dataDirectory };
  const asked = execFileSync(join(ROOT, 'apps/cli/bin/instavm'), ['ca', 'path', '--json'], { env, encoding: 'utf8' });
  const { path, bundlePath } = JSON.parse(asked) as { path: string; bundlePath: string };
  return { NODE_EXTRA_CA_CERTS: path, SSL_CERT_FILE: bundlePath };
}

function show(event: ToolEvent): void {
  if (event.kind === 'call') console.log(`\n  ${event.name}\n${indented(event.text.trimEnd(), '  │ ')}`);
  else console.log(indented(event.text.trimEnd() || '(no output)', '  → '));
}

function indented(text: string, prefix = '    '): string {
  return text
    .split('\n')
    .map((line) => prefix + line)
    .join('\n');
}
