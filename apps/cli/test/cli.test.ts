/** The command line as a person uses it: in a real terminal, in pipes, and when things go wrong. */
import { spawn as spawnPiped } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { SandboxId } from '@instavm/core';
import { egressLog, openDatabase } from '@instavm/store';
import { egressEntry, startTestDaemon, type TestDaemon } from '@instavm/testing';
import { type IPty, spawn } from '@lydell/node-pty';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { candidates } from '../src/completion/candidates.ts';
import { knownTo } from '../src/completion/known.ts';
import { program } from '../src/program.ts';

const INSTAVM = resolve(fileURLToPath(import.meta.url), '../../bin/instavm');

let daemon: TestDaemon;
let client: InstaVM;
let sandbox: Sandbox;
let env: Record<string, string>;
let compileCache: string;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake' });
  env = { PATH: process.env.PATH ?? '', HOME: '/nonexistent', NODE_DISABLE_COMPILE_CACHE: '1', TERM: 'xterm-256color' };
  // Each start of the program takes a third of the time with it.
  compileCache = await mkdtemp(join(tmpdir(), 'instavm-cli-'));
  Object.assign(env, { NODE_COMPILE_CACHE: compileCache });
  Object.assign(env, { INSTAVM_BASE_URL: daemon.baseUrl, INSTAVM_API_KEY: daemon.apiKey });
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  sandbox = await client.sandboxes.create();
});
afterAll(async () => {
  client.close();
  await daemon.stop();
  await rm(compileCache, { recursive: true });
});

/** Runs it in pipes. */
async function run(args: string[], { input = '', changes = {} }: { input?: string; changes?: object } = {}) {
  const child = spawnPiped(INSTAVM, args, { env: { ...env, ...changes }, stdio: ['pipe', 'pipe', 'pipe'] });
  const [stdout, stderr]: string[] = ['', ''];
  const out = { stdout: stdout ?? '', stderr: stderr ?? '' };
  child.stdout.on('data', (chunk) => {
    out.stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    out.stderr += chunk;
  });
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const [code] = await once(child, 'close');
  return { ...out, code: code as number };
}

/** As many at a time as keep two processors busy. */
async function eachOf<T>(cases: readonly T[], check: (one: T) => Promise<void>): Promise<void> {
  const waiting = [...cases];
  const worker = async (): Promise<void> => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) await check(one);
  };
  await Promise.all([worker(), worker(), worker()]);
}

/** Runs it under a shell in a real terminal, as a person would; the shell tells what is left of the terminal. */
class Screen {
  readonly terminal: IPty;
  text = '';

  constructor(cols = 90, rows = 20) {
    this.terminal = spawn('bash', ['--norc', '--noediting', '-i'], { cols, rows, env: { ...env, PS1: '$ ' } });
    this.terminal.onData((data) => {
      this.text += data;
    });
  }

  type(text: string): void {
    this.terminal.write(text);
  }

  shows(text: string | RegExp): Promise<void> {
    const shown = expect.poll(() => this.text, { timeout: 15_000 });
    return typeof text === 'string' ? shown.toContain(text) : shown.toMatch(text);
  }

  /** What stty(1) says when the command line has ended. */
  async isSane(): Promise<void> {
    this.text = '';
    this.type('stty -a | grep -o " icanon\\| echo "; echo "is sane"\r');
    await this.shows(/ icanon\r\n echo\s*\r\nis sane/);
  }

  close(): void {
    this.terminal.kill('SIGKILL');
  }
}

describe('instavm shell, in a terminal', () => {
  const inScreen = async (test: (screen: Screen) => Promise<void>): Promise<void> => {
    const screen = new Screen();
    try {
      await screen.shows('$ ');
      await test(screen);
    } finally {
      screen.close();
    }
  };

  it('is the size of the terminal, follows it, passes keys and the exit code, and leaves it sane', () =>
    inScreen(async (screen) => {
      screen.type(`${INSTAVM} shell ${sandbox.id} -- bash --norc --noediting -i; echo "ended with $?"\r`);
      await screen.shows(/bash-[\d.]+[#$] /);
      screen.type('stty size; echo $TERM\r');
      await screen.shows('20 90\r\nxterm-256color');
      screen.terminal.resize(120, 40);
      screen.type('sleep 0.3; stty size\r');
      await screen.shows('40 120');
      screen.type('sleep 100\r');
      await screen.shows('sleep 100\r\n');
      screen.type('\x03');
      screen.type('echo "interrupted: $?"\r');
      await screen.shows('interrupted: 130');
      screen.type('exit 7\r');
      await screen.shows('ended with 7');
      await screen.isSane();
    }));

  it('detaches with Enter ~ . and comes back to the same shell', () =>
    inScreen(async (screen) => {
      screen.type(`${INSTAVM} shell ${sandbox.id} --id kept -- bash --norc --noediting -i\r`);
      await screen.shows(/bash-[\d.]+[#$] /);
      screen.type('mark=here\r~.');
      await screen.shows('--attach kept');
      await screen.isSane();
      expect((await sandbox.pty.get('kept')).alive).toBe(true);
      screen.type(`${INSTAVM} shell ${sandbox.id} --attach kept; echo "ended with $?"\r`);
      await screen.shows('mark=here');
      screen.type('echo "still $mark"; exit 5\r');
      await screen.shows('still here');
      await screen.shows('ended with 5');
    }));

  it('detaches when its window is closed, and the shell lives on', async () => {
    // A terminal of its own, whose other end goes away as that of a closed window does.
    const argv = ['shell', sandbox.id, '--id', 'window', '--', 'bash', '--norc', '--noediting', '-i'];
    const window = spawn(INSTAVM, argv, { env });
    let text = '';
    window.onData((data) => {
      text += data;
    });
    await expect.poll(() => text, { timeout: 15_000 }).toMatch(/bash-[\d.]+[#$] /);
    window.write('mark=here; trap "echo was hung up" HUP\r');
    await expect.poll(() => text, { timeout: 15_000 }).toMatch(/HUP\r\n.*[#$] $/);
    (window as unknown as { destroy(): void }).destroy();
    await expect.poll(async () => (await sandbox.pty.get('window')).viewers, { timeout: 15_000 }).toBe(0);
    const again = await run(['shell', sandbox.id, '--attach', 'window'], { input: 'echo "still $mark"; exit 5\n' });
    expect([again.code, again.stdout]).toEqual([5, expect.stringContaining('still here')]);
    expect(again.stdout).not.toMatch(/logout|was hung up\r\n/);
  });

  it('leaves the terminal sane when it is killed, and the program in the sandbox running', () =>
    inScreen(async (screen) => {
      screen.type(`${INSTAVM} shell ${sandbox.id} --id orphan -- bash --norc --noediting -i; echo "ended with $?"\r`);
      await screen.shows(/bash-[\d.]+[#$] /);
      screen.type('printf "\\033[?1049h\\033[?25l"; echo full screen\r');
      await screen.shows('full screen\r\n');
      const { stdout } = await runHost('pgrep', ['-f', 'main.ts shell .*--id orphan']);
      process.kill(Number(stdout.trim().split('\n')[0]), 'SIGTERM');
      await screen.shows('ended with 143');
      expect(screen.text).toContain('\x1b[?1049l\x1b[?25h');
      await screen.isSane();
      expect((await sandbox.pty.get('orphan')).alive).toBe(true);
      await sandbox.pty.kill('orphan');
    }));
});

async function runHost(command: string, args: string[]) {
  const child = spawnPiped(command, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  let stdout = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  await once(child, 'close');
  return { stdout };
}

describe('instavm, in pipes', () => {
  it('gives a terminal its input to the end and loses no output', async () => {
    const script = 'while read line; do echo "got $line"; done; seq 20000; exit 6';
    const { stdout, code } = await run(['shell', sandbox.id, '--', 'bash', '-c', script], { input: 'a\nb' });
    expect(code).toBe(6);
    expect(stdout).toContain('got a\r\n');
    expect(stdout.trimEnd().endsWith('19999\r\n20000')).toBe(true);
  });

  it('runs commands with their streams and exit code', async () => {
    const done = await run(['exec', sandbox.id, 'sh', '-c', 'cat; echo oops >&2; exit 9'], { input: 'in\n' });
    expect(done).toEqual({ stdout: 'in\n', stderr: 'oops\n', code: 9 });
    const json = await run(['exec', '--json', sandbox.id, '--', 'echo', '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({ stdout: '--json\n', exitCode: 0 });
  });

  it('makes, lists and ends sandboxes, as tables and as JSON', async () => {
    const made = JSON.parse((await run(['new', '--json', '--memory', '256', '--env', 'A=b c'])).stdout);
    expect(made).toMatchObject({ state: 'running', memoryMb: 256 });
    expect((await run(['exec', made.incarnationId, 'printenv', 'A'])).stdout).toBe('b c\n');
    expect((await run(['ls'])).stdout).toMatch(new RegExp(`^SANDBOX .*\n[\\s\\S]*${made.id}  running`));
    await client.sandboxes.attach(made.id).pty.create({ id: 'one', argv: ['sleep', '60'] });
    expect((await run(['shell', 'ls', made.id])).stdout).toMatch(/one +running +80x24 +1 +root .*sleep 60/);
    expect(JSON.parse((await run(['shell', 'ls', made.id, '--json'])).stdout)[0]).toMatchObject({
      id: 'one',
      alive: true,
    });
    expect((await run(['rm', made.id])).stdout).toBe(`${made.id} ended\n`);
    const listed = JSON.parse((await run(['ls', '--json'])).stdout) as { id: string }[];
    expect(listed.map(({ id }) => id)).not.toContain(made.id);
  });

  it('clones, suspends, resumes and keeps moments of sandboxes, by the first characters of their ids', async () => {
    const { id } = await client.sandboxes.create({ ttlSeconds: 600 });
    const short = id.slice(0, 13);
    await run(['exec', short, 'sh', '-c', 'echo kept > /tmp/mark']);
    const clones = (await run(['clone', short, '--count', '2'])).stdout.trim().split('\n');
    expect(new Set([...clones, id]).size).toBe(3);
    expect((await run(['suspend', short, clones[0] ?? ''])).stdout).toBe(`${id} suspended\n${clones[0]} suspended\n`);
    expect((await run(['ls'])).stdout).toMatch(new RegExp(`${id}  suspended`));
    expect(JSON.parse((await run(['resume', short, '--json'])).stdout)).toMatchObject([{ id, state: 'running' }]);
    const taken = await run(['snapshot', 'create', short, '--name', 'ready']);
    expect(taken.stderr).toContain(`new --snapshot ${taken.stdout.trim()}`);
    expect((await run(['snapshot', 'ls'])).stdout).toMatch(
      new RegExp(`^SNAPSHOT +NAME[\\s\\S]*${taken.stdout.trim()} +ready +ready`),
    );
    expect(JSON.parse((await run(['snapshot', 'show', 'ready', '--json'])).stdout)).toMatchObject({ name: 'ready' });
    const begun = await run(['new', '--snapshot', 'ready', '--metadata', 'from=ready', '--json']);
    expect(JSON.parse(begun.stdout)).toMatchObject({ state: 'running', metadata: { from: 'ready' } });
    expect((await run(['snapshot', 'rm', 'ready'])).stdout).toBe(`${taken.stdout.trim()} deleted\n`);
    expect((await run(['rm', id, ...clones])).stdout).toBe([id, ...clones].map((one) => `${one} ended\n`).join(''));
  });

  it('shows, changes and explains what a sandbox may reach', async () => {
    const { id } = await client.sandboxes.create();
    const policy = async () => JSON.parse((await run(['egress', 'get', id, '--json'])).stdout);
    await run([
      'egress',
      'set',
      id,
      '--deny-all',
      '--allow-https',
      '--allow-domain',
      'a.test',
      '--allow-domain',
      '*.b.test',
    ]);
    expect(await policy()).toMatchObject({
      allowHttps: true,
      allowHttp: false,
      allowedDomains: ['a.test', '*.b.test'],
    });
    const set = await run([
      'egress',
      'set',
      id,
      '--no-allow-https',
      '--allow-cidr',
      '192.0.2.0/24',
      '--remove-domain',
      'a.test',
    ]);
    expect(set.stdout).toMatch(
      /port 443 +denied[\s\S]*registries +denied[\s\S]*\*\.b\.test +allowed[\s\S]*192\.0\.2\.0\/24 +allowed/,
    );
    expect(await policy()).toEqual({
      ...{ allowHttp: false, allowHttps: false, allowPackageManagers: false },
      ...{ allowedDomains: ['*.b.test'], allowedCidrs: ['192.0.2.0/24'] },
    });
    const refused = await run(['egress', 'set', id, '--allow-domain', 'a b', '--allow-http']);
    expect([refused.code, refused.stdout]).toEqual([2, '']);
    expect(refused.stderr).toMatch(/"a b"[\s\S]*Nothing was changed/);
    expect((await policy()).allowHttp).toBe(false);
    const allowed = await run(['egress', 'test', id, '192.0.2.7:22']);
    expect(allowed).toMatchObject({ code: 0, stderr: '' });
    expect(allowed.stdout).toMatch(
      /^allowed {2}192\.0\.2\.7:22 {2}allowed_cidrs:192\.0\.2\.0\/24\n[\s\S]*192\.0\.2\.7 +allowed/,
    );
    await run(['egress', 'set', id, '--deny-all']);
    const denied = await run(['egress', 'test', id, 'c.test:443']);
    expect(denied).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('c.test'),
      stderr: expect.stringContaining(`egress set ${id}`),
    });
    expect(JSON.parse((await run(['egress', 'test', id, 'c.test:443', '--json'])).stdout).rule).toBe('default_deny');
  });

  it('shows what a sandbox tried to reach, and follows it', async () => {
    const { id } = await client.sandboxes.create();
    const database = await openDatabase(join(daemon.dataDirectory, 'instavm.db'));
    const entry = egressEntry({ host: 'a.test', bytesSent: 120, bytesReceived: 3_500_000, durationMs: 42 });
    const denied = {
      ...entry,
      allowed: false,
      outcome: 'denied',
      rule: 'default_deny',
      host: 'b\x1b[2J.test',
      repeated: 9,
    } as const;
    await egressLog(database).append(id as SandboxId, [entry, denied]);
    await database.destroy();
    const lines = (await run(['egress', 'log', id])).stdout.trim().split('\n');
    expect(lines[0]).toMatch(/^TIME +VERDICT +DESTINATION +ADDRESS +RULE +↑ +↓ +MS +REASON$/);
    expect(lines[1]).toMatch(
      /^2026-01-01T00:00:00Z +allowed +a\.test:443 +192\.0\.2\.1 +allow_https +120 B +3\.5 MB +42$/,
    );
    expect(lines[2]).toMatch(/denied ×9 +b\ufffd\[2J\.test:443 .*default_deny/);
    const json = (await run(['egress', 'log', id, '--json', '--denied'])).stdout.trim().split('\n');
    expect(json.map((line) => JSON.parse(line).id)).toEqual([2]);
    expect((await run(['egress', 'log', id, '--host', 'nowhere.test', '--json'])).stdout).toBe('');
    const following = spawnPiped(INSTAVM, ['egress', 'log', id, '--follow', '--limit', '1', '--json'], { env });
    const [first] = await once(following.stdout, 'data');
    expect(JSON.parse(String(first))).toMatchObject({ id: 2 });
    following.kill('SIGINT');
    expect((await once(following, 'close'))[1] ?? 'SIGINT').toBe('SIGINT');
  });

  it('shares ports, lists them, gives links and revokes them', async () => {
    const { id } = await client.sandboxes.create();
    const url = /^https:\/\/(shr[a-z2-7]{20})\.\S+\n$/;
    const shared = await run(['share', id, '8000']);
    expect(shared.stdout).toMatch(url);
    const share = url.exec(shared.stdout)?.[1] ?? '';
    expect(shared.stderr).toContain(`share link ${share}`);
    expect((await run(['share', id, '8000', '--public'])).stdout).toBe(shared.stdout);
    expect(JSON.parse((await run(['share', id, '8000', '--json'])).stdout)).toMatchObject({
      id: share,
      isPublic: true,
    });
    const header = /^SHARE +SANDBOX +PORT +OPEN TO +AGE +URL\n/;
    const listed = (await run(['share', 'ls'])).stdout;
    expect(listed).toMatch(header);
    expect(listed).toMatch(new RegExp(`\n${share}  ${id}  8000  public +\\d+ s  https://${share}\\.`));
    expect((await run(['share', id, '8000', '--private', '--json'])).stdout).toContain('"isPublic":false');
    expect((await run(['share', id, '8000', '--rewrite-host', '--json'])).stdout).toContain('"rewriteHost":true');
    expect((await run(['share', id, '8000', '--json'])).stdout).toContain('"rewriteHost":true');
    expect((await run(['share', id, '8000', '--no-rewrite-host', '--json'])).stdout).toContain('"rewriteHost":false');
    expect(JSON.parse((await run(['share', 'ls', id, '--json'])).stdout)).toMatchObject([{ id: share, port: 8000 }]);
    const link = await run(['share', 'link', share, '--ttl', '2h']);
    expect(link.stdout).toMatch(new RegExp(`^https://${share}\\.\\S+\\?\\S+\n$`));
    expect((await run(['share', 'link', share, '--revoke', link.stdout.trim()])).stdout).toMatch(
      /^lnk[a-z2-7]{16} revoked\n$/,
    );
    expect(link.stderr).toMatch(new RegExp(`share link ${share} --revoke lnk[a-z2-7]{16}\n`));
    const { expiresAt } = JSON.parse((await run(['share', 'link', share, '--ttl', '90', '--json'])).stdout);
    expect(Date.parse(expiresAt) - Date.now()).toBeLessThanOrEqual(90_000);
    expect((await run(['share', 'rm', share])).stdout).toBe(`${share} revoked\n`);
    expect((await run(['share', 'ls', id])).stdout).toMatch(new RegExp(`${header.source}$`));
    expect(await run(['share', 'link', share])).toMatchObject({ code: 3, stderr: expect.stringContaining(share) });
  });

  it('says what is wrong and what to type next, by exit codes that tell kinds apart', async () => {
    const nowhere = '00000000-0000-4000-8000-000000000000';
    const [usage, notFound, refused, network, notRun, notAProgram] = [2, 3, 4, 5, 125, 127];
    const cases: [string[], object, number, RegExp][] = [
      [['shell', nowhere], {}, notRun, /there is no sandbox[\s\S]*instavm ls/],
      [['shell', sandbox.id, '--attach', 'nowhere'], {}, notRun, /nowhere[\s\S]*instavm shell ls/],
      [['shell', sandbox.id, '--escape', 'xx'], {}, usage, /one printable character/],
      [['shell', 'rm', sandbox.id, 'nowhere'], {}, notFound, /instavm shell ls/],
      [['exec', sandbox.id, 'no-such-program'], {}, notAProgram, /no-such-program/],
      [['exec', '--cwd', '/nowhere', sandbox.id, 'true'], {}, notRun, /\/nowhere/],
      [['exec', sandbox.id, '--cwd', '/tmp', 'true'], {}, usage, /--cwd goes before the sandbox/],
      [['rm', 'vm_aaaaaaaaaaaaaaaaaaaa'], {}, notFound, /there is no VM[\s\S]*instavm ls/],
      [['rm', 'ffff'], {}, notFound, /there is no sandbox ffff/],
      [['rm', 'my sandbox'], {}, usage, /is not the id of a sandbox[\s\S]*instavm ls/],
      [['snapshot', 'show', 'nowhere'], {}, notFound, /instavm snapshot ls/],
      [['new', '--snapshot', 'nowhere'], {}, notFound, /there is no snapshot nowhere/],
      [['egress', 'set', sandbox.id], {}, usage, /--allow-domain[\s\S]*--help/],
      [
        ['egress', 'set', sandbox.id, '--remove-domain', 'x.test'],
        {},
        usage,
        /x\.test is not on the list[\s\S]*egress get/,
      ],
      [['egress', 'test', sandbox.id, 'nowhere:x'], {}, usage, /name:port[\s\S]*npx instavm egress test --help/],
      [['egress', 'log', nowhere], {}, notFound, /there is no sandbox/],
      [['share', sandbox.id, '0'], {}, usage, /from 1 to 65535/],
      [['share', sandbox.id], {}, usage, /missing required argument 'port'[\s\S]*npx instavm share --help/],
      [['new', '--vcpus', '3'], {}, usage, /It takes 1, 2, 4, 6, 8/],
      [['new', '--ttl', '5'], {}, usage, /from 20s up to 1d/],
      [['share', sandbox.id, '80', '--public', '--private'], {}, usage, /either/],
      [['share', nowhere, '80'], {}, notFound, /there is no sandbox/],
      [['share', 'rm', 'nowhere'], {}, notFound, /there is no share nowhere[\s\S]*share ls/],
      [['share', 'link', 'nowhere', '--ttl', '8d'], {}, usage, /up to 7d/],
      [['share', 'link', 'nowhere', '--revoke', 'x'], {}, usage, /x is the id of no link/],
      [['lss'], {}, usage, /Did you mean ls\?/],
      [['ls', '--jsn'], {}, usage, /Did you mean --json\?/],
      [['ls'], { INSTAVM_API_KEY: 'wrong' }, refused, /API key[\s\S]*instavm login/],
      [['ls'], { INSTAVM_API_KEY: '' }, refused, /no API key[\s\S]*instavm login/],
      [['ls'], { INSTAVM_BASE_URL: 'http://127.0.0.1:9' }, network, /instavm serve/],
    ];
    await eachOf(cases, async ([args, changes, expected, said]) => {
      const { stderr, stdout, code } = await run(args, { changes });
      expect([code, stdout], args.join(' ')).toEqual([expected, '']);
      expect(stderr).toMatch(said);
    });
    const told = await run(['snapshot', 'show', 'nowhere', '--json']);
    expect(JSON.parse(told.stderr).error).toMatchObject({ code: 'snapshot_not_found', retryable: 'no' });
  });
});

describe('instavm keys', () => {
  it('makes keys that go into a pipe, lists, rotates and revokes them', async () => {
    const made = await run(['keys', 'create', 'ci', '--scope', 'run', '--ttl', '1d']);
    expect([made.code, made.stdout]).toEqual([0, expect.stringMatching(/^instavm_sk_[\w-]{43}\n$/)]);
    const [key] = JSON.parse((await run(['keys', 'ls', '--json'])).stdout);
    expect(key).toMatchObject({ name: 'ci', scope: 'run', prefix: made.stdout.slice(0, key.prefix.length) });
    expect((await run(['keys', 'ls'])).stdout).toMatch(/KEY +NAME[\s\S]*ci +instavm_sk_/);
    const changes = { INSTAVM_API_KEY: made.stdout.trim() };
    expect((await run(['ls', '--json'], { changes })).code).toBe(0);
    expect(await run(['keys', 'ls'], { changes })).toMatchObject({
      code: 4,
      stderr: expect.stringContaining('scope full'),
    });
    const rotated = await run(['keys', 'rotate', String(key.id)]);
    expect(rotated.stdout).toMatch(/^instavm_sk_/);
    expect((await run(['ls'], { changes })).stderr).toContain('not valid');
    expect((await run(['keys', 'rm', String(key.id)])).stdout).toBe(`${key.id} revoked\n`);
    expect(await run(['keys', 'rm', String(key.id)])).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('there is no key'),
    });
    expect((await run(['keys', 'create', 'x', '--metadata', 'a=b'])).stderr).toContain('--scope run');
  });
});

describe('instavm credit', () => {
  it('tells what is left, used and costs, and adds to it', async () => {
    const left = await run(['credit']);
    expect([left.code, left.stdout]).toEqual([0, expect.stringMatching(/^left {2}\$\d+\.\d\d\nused {2}\$/)]);
    expect(left.stderr).toContain('stops nobody');
    const balance = JSON.parse((await run(['credit', '--json'])).stdout);
    expect(balance).toMatchObject({ isEnforced: false, overage: 0 });
    const added = await run(['credit', 'add', '25', '--account', 'admin@localhost', '--note', 'paid', '--json']);
    expect(JSON.parse(added.stdout).remaining).toBeGreaterThan(balance.remaining + 20);
    expect((await run(['credit', 'add', 'much'])).stderr).toContain('such as 25');
    expect(await run(['credit', 'add', '1', '--account', 'x'])).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('no account'),
    });
    expect((await run(['credit', 'usage'])).stdout).toMatch(/^DAY +COST[\s\S]*\nall +\$/);
    expect((await run(['credit', 'rates'])).stdout).toContain('$0.05 an hour');
  });
});

describe('instavm quota', () => {
  it('shows what an account may have and has, and changes it for the administrator', async () => {
    const own = await run(['quota']);
    expect(own.stdout).toMatch(/^QUOTA +USED +LIMIT +OF WHAT\nsandboxes +\d+ +100 +that run at once\n/);
    const set = await run(['quota', 'set', 'admin@localhost', 'sandboxes=90', 'requests=5000', '--json']);
    expect(JSON.parse(set.stdout).limits).toMatchObject({ sandboxes: 90, requestsPerMinute: 5_000 });
    const back = await run(['quota', 'set', 'admin@localhost', 'sandboxes=default', 'requests=default', '--json']);
    expect(JSON.parse(back.stdout).limits).toMatchObject({ sandboxes: 100, requestsPerMinute: 120_000 });
    expect(await run(['quota', 'set', 'x', 'elephants=1'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('sandboxes, vcpus'),
    });
  });
});

describe('instavm logs', () => {
  it('shows what ran in the background, goes on with it, and ends as it does', async () => {
    const { id } = await client.sandboxes.create();
    const script = 'echo begun; read line; echo "$line"; exit 3';
    const begun = await run(['exec', '--detach', id, 'sh', '-c', script]);
    const terminal = begun.stdout.trim();
    expect(begun.stderr).toContain(`logs ${id} ${terminal} --follow`);
    await expect.poll(async () => (await run(['logs', id])).stdout, { timeout: 15_000 }).toBe('begun\n');
    const following = run(['logs', id, terminal, '--follow', '--json']);
    const attached = await client.sandboxes.attach(id).pty.attach(terminal);
    await attached.write('typed\r');
    const lines = (await following).stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines.at(-1)).toEqual({ exitCode: 3, signal: null });
    expect(lines.map(({ text = '' }) => text).join('')).toMatch(/^begun\r\ntyped\r\ntyped\r\n$/);
    expect((await following).code).toBe(3);
    expect((await run(['logs', id])).stdout).toBe('begun\ntyped\ntyped\n');
  });
});

describe('instavm completion', () => {
  const completed = async (words: string[]) => {
    const known = (kind: string, before: readonly string[]) => knownTo(client, kind, before);
    return (await candidates(program, words, known)).values.map(([value]) => value);
  };

  it('knows commands, options, their values, and what the server has', async () => {
    const { id } = await client.sandboxes.create();
    await client.sandboxes.attach(id).pty.create({ id: 'build', argv: ['sleep', '60'] });
    const cases: [string[], string[]][] = [
      [['sh'], ['shell', 'share']],
      [
        ['share', 'l'],
        ['ls', 'link'],
      ],
      [['keys', 'create', '--sc'], ['--scope']],
      [
        ['keys', 'create', '--scope', 'r'],
        ['read', 'run'],
      ],
      [['keys', 'create', '--scope=f'], ['--scope=full']],
      [['exec', id.slice(0, 9)], [id]],
      [['--base-url', daemon.baseUrl, 'exec', '--cwd', '/tmp', id.slice(0, 9)], [id]],
      [['exec', id, '--', 'l'], []],
      [['shell', id, '--attach', 'b'], ['build']],
      [['shell', 'rm', id, 'b'], ['build']],
      [['cp', './', id.slice(0, 9)], [`${id}:/`]],
    ];
    for (const [words, values] of cases) expect(await completed(words), words.join(' ')).toEqual(values);
    expect((await run(['complete', '--', 'cp', './no'])).stdout).toBe(':0\n');
    expect((await run(['complete', '--', 'ls', 'x'])).stdout).toBe(':4\n');
    expect((await run(['complete', '--', 'cp', id.slice(0, 9)])).stdout).toMatch(
      new RegExp(`^${id}:/\trunning, .*\n:2\n$`),
    );
  });

  it('completes in bash by the script that it prints', async () => {
    const script = (await run(['completion', 'bash'])).stdout;
    const words = 'instavm keys create --scope r';
    // Twice, as an initialization file is read again; and without bash-completion, which is not everywhere.
    const line = `PATH="$2:$PATH"; compopt() { :; }; eval "$1"; eval "$1"; complete -p instavm; COMP_LINE="${words}"; COMP_POINT=\${#COMP_LINE}; COMP_WORDS=(${words}); COMP_CWORD=4; COMP_TYPE=9
      "$(complete -p instavm | sed 's/.*-F \\([^ ]*\\) .*/\\1/')"; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const shell = spawnPiped('bash', ['-c', line, 'bash', script, dirname(INSTAVM)], { env });
    let said = '';
    shell.stdout.on('data', (chunk) => {
      said += chunk;
    });
    let complaints = '';
    shell.stderr.on('data', (chunk) => {
      complaints += chunk;
    });
    await once(shell, 'close');
    expect(said).toMatch(/read/);
    expect(said).toMatch(/run/);
    expect(complaints).toBe('');
  });
});
