/**
 * The entry of every `npm run` command: plain JavaScript for whichever Node runs npm. Checks that the tools are there,
 * installs the npm dependencies when they differ from the lockfile, and hands over to `scripts/<command>.ts` under the
 * pinned Node of node_modules, passing on standard streams, signals and the exit status.
 */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const NODE = join(ROOT, 'node_modules', '.bin', 'node');
const OLDEST_NODE_MAJOR = 20;

/** Programs that the commands need beforehand; Debian packages are setup's business. */
const TOOLS = {
  npm: 'comes with Node: https://nodejs.org/en/download',
  cargo: "install Rust: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh, then open a new shell",
  python3: 'sudo apt-get install python3',
};

const [command = '', ...args] = process.argv.slice(2);
if (command === '--install') {
  process.exit(installed() ? 0 : install());
}
if (!/^[a-z]+$/.test(command) || !existsSync(join(ROOT, 'scripts', `${command}.ts`))) {
  fail([`there is no command "${command}"; the commands are in package.json`]);
}
// The doctor is for machines that lack something, so it starts with as little as possible.
fail(missingRequirements(command === 'doctor' ? ['npm'] : Object.keys(TOOLS)));
if (!installed()) installUnderLock();
handOver();

function missingRequirements(tools) {
  const problems = [];
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    problems.push(`InstaVM runs on Linux on x86-64; this is ${process.platform} on ${process.arch}`);
  }
  if (Number.parseInt(process.versions.node, 10) < OLDEST_NODE_MAJOR) {
    problems.push(
      `Node ${OLDEST_NODE_MAJOR} or newer is needed, this is ${process.version}: https://nodejs.org/en/download`,
    );
  }
  for (const tool of tools) {
    if (!onPath(tool)) problems.push(`${tool} is not on the PATH; ${TOOLS[tool]}`);
  }
  return problems;
}

function onPath(program) {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** npm writes node_modules/.package-lock.json when it has finished; an interrupted installation has none. */
function installed() {
  const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages;
  let present;
  try {
    present = JSON.parse(readFileSync(join(ROOT, 'node_modules', '.package-lock.json'), 'utf8')).packages;
  } catch {
    return false;
  }
  return Object.entries(wanted).every(
    ([path, entry]) =>
      path === '' || entry.optional || !path.includes('node_modules') || present[path]?.version === entry.version,
  );
}

/** Two commands started at once in one clone must not install into each other's node_modules. */
function installUnderLock() {
  mkdirSync(join(ROOT, '.cache'), { recursive: true });
  const again = [process.execPath, fileURLToPath(import.meta.url), '--install'];
  const { status, error } = spawnSync('flock', [join(ROOT, '.cache', 'install.lock'), ...again], { stdio: 'inherit' });
  if (error) fail([`flock could not be started (${error.message}); sudo apt-get install util-linux`]);
  if (status !== 0) process.exit(status ?? 1);
}

function install() {
  console.log('Installing npm dependencies (npm ci) …');
  const { status, error } = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: ROOT,
    stdio: 'inherit',
  });
  if (error) fail([`npm could not be started: ${error.message}`]);
  return status ?? 1;
}

function handOver() {
  const script = join(ROOT, 'scripts', `${command}.ts`);
  const flags = ['--conditions=instavm-source', '--disable-warning=ExperimentalWarning'];
  const child = spawn(NODE, [...flags, script, ...args], { cwd: ROOT, stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      // At a terminal, Ctrl-C reaches the whole foreground group, the child too.
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
    });
  }
  child.once('error', (error) =>
    fail([`${NODE} could not be started (${error.message}); delete node_modules and try again`]),
  );
  child.once('exit', (code, signal) => process.exit(signal ? 128 + osConstants.signals[signal] : code));
}

function fail(problems) {
  if (problems.length === 0) return;
  for (const problem of problems) console.error(`instavm: ${problem}`);
  process.exit(1);
}
