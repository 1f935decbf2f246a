/** The command line as a person uses it: in a real terminal, in pipes, and when things go wrong. */
import { spawn as spawnPiped } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { type IPty, spawn } from '@lydell/node-pty';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const INSTAVM = resolve(fileURLToPath(import.meta.url), '../../bin/instavm');

let daemon: TestDaemon;
let client: InstaVM;
let sandbox: Sandbox;
let env: Record<string, string>;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake' });
  env = { PATH: process.env.PATH ?? '', HOME: '/nonexistent', TERM: 'xterm-256color' };
  Object.assign(env, { INSTAVM_BASE_URL: daemon.baseUrl, INSTAVM_API_KEY: daemon.apiKey });
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  sandbox = await client.sandboxes.create();
});
afterAll(async () => {
  client.close();
  await daemon.stop();
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

describe('instavm pty, in a terminal', () => {
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
      screen.type(`${INSTAVM} pty ${sandbox.id} -- bash --norc --noediting -i; echo "ended with $?"\r`);
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
      screen.type(`${INSTAVM} pty ${sandbox.id} --id kept -- bash --norc --noediting -i\r`);
      await screen.shows(/bash-[\d.]+[#$] /);
      screen.type('mark=here\r~.');
      await screen.shows('--attach kept');
      await screen.isSane();
      expect((await sandbox.pty.get('kept')).alive).toBe(true);
      screen.type(`${INSTAVM} pty ${sandbox.id} --attach kept; echo "ended with $?"\r`);
      await screen.shows('mark=here');
      screen.type('echo "still $mark"; exit 5\r');
      await screen.shows('still here');
      await screen.shows('ended with 5');
    }));

  it('leaves the terminal sane when it is killed, and the program in the sandbox running', () =>
    inScreen(async (screen) => {
      screen.type(`${INSTAVM} pty ${sandbox.id} --id orphan -- bash --norc --noediting -i; echo "ended with $?"\r`);
      await screen.shows(/bash-[\d.]+[#$] /);
      screen.type('printf "\\033[?1049h\\033[?25l"; echo full screen\r');
      await screen.shows('full screen\r\n');
      const { stdout } = await runHost('pgrep', ['-f', 'main.ts pty .*--id orphan']);
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
    const { stdout, code } = await run(['pty', sandbox.id, '--', 'bash', '-c', script], { input: 'a\nb' });
    expect(code).toBe(6);
    expect(stdout).toContain('got a\r\n');
    expect(stdout.trimEnd().endsWith('19999\r\n20000')).toBe(true);
  });

  it('runs commands with their streams and exit code', async () => {
    const done = await run(['exec', sandbox.id, 'sh', '-c', 'cat; echo oops >&2; exit 9'], { input: 'in\n' });
    expect(done).toEqual({ stdout: 'in\n', stderr: 'oops\n', code: 9 });
    const json = await run(['exec', '--json', sandbox.id, '--', 'echo', '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({ stdout: '--json\n', exit_code: 0 });
  });

  it('makes, lists and ends sandboxes, as tables and as JSON', async () => {
    const made = JSON.parse((await run(['new', '--json', '--memory', '256', '--env', 'A=b c'])).stdout);
    expect(made).toMatchObject({ state: 'running', memoryMb: 256 });
    expect((await run(['exec', made.incarnationId, 'printenv', 'A'])).stdout).toBe('b c\n');
    expect((await run(['ls'])).stdout).toMatch(new RegExp(`^SANDBOX .*\n[\\s\\S]*${made.id}  running`));
    await client.sandboxes.attach(made.id).pty.create({ id: 'one', argv: ['sleep', '60'] });
    expect((await run(['ptys', made.id])).stdout).toMatch(/one +running +80x24 +1 +root .*sleep 60/);
    expect(JSON.parse((await run(['ptys', made.id, '--json'])).stdout)[0]).toMatchObject({ id: 'one', alive: true });
    expect((await run(['rm', made.id])).stdout).toBe(`${made.id} ended\n`);
    const listed = JSON.parse((await run(['ls', '--json'])).stdout) as { id: string }[];
    expect(listed.map(({ id }) => id)).not.toContain(made.id);
  });

  it('says what is wrong and what to do, and exits with 1', async () => {
    const cases: [string[], object, RegExp][] = [
      [['pty', '00000000-0000-4000-8000-000000000000'], {}, /there is no session/],
      [['pty', sandbox.id, '--attach', 'nowhere'], {}, /nowhere/],
      [['pty', sandbox.id, '--escape', 'xx'], {}, /one printable character/],
      [['exec', sandbox.id, 'no-such-program'], {}, /no-such-program/],
      [['rm', 'vm_aaaaaaaaaaaaaaaaaaaa'], {}, /there is no VM[\s\S]*instavm ls/],
      [['ls'], { INSTAVM_API_KEY: 'wrong' }, /API key/],
      [['ls'], { INSTAVM_API_KEY: '' }, /no API key/],
      [['ls'], { INSTAVM_BASE_URL: 'http://127.0.0.1:9' }, /npm start/],
    ];
    for (const [args, changes, expected] of cases) {
      const { stderr, stdout, code } = await run(args, { changes });
      expect([code, stdout], args.join(' ')).toEqual([1, '']);
      expect(stderr).toMatch(expected);
    }
  });
});
