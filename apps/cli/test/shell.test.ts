/** `instavm shell` as a person uses it: in a real terminal. */
import { execFileSync } from 'node:child_process';
import { type IPty, spawn } from '@lydell/node-pty';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CommandLine, INSTAVM, PATIENCE } from './command-line.ts';

let cli: CommandLine;
beforeAll(async () => {
  cli = await CommandLine.open();
});
afterAll(() => cli.close());

/** Runs it under a shell in a real terminal, as a person would; the shell tells what is left of the terminal. */
class Screen {
  readonly terminal: IPty;
  text = '';

  constructor(cols = 90, rows = 20) {
    this.terminal = spawn('bash', ['--norc', '--noediting', '-i'], { cols, rows, env: { ...cli.env, PS1: '$ ' } });
    this.terminal.onData((data) => {
      this.text += data;
    });
  }

  type(text: string): void {
    this.terminal.write(text);
  }

  shows(text: string | RegExp): Promise<void> {
    const shown = expect.poll(() => this.text);
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

describe('instavm shell, in a terminal', PATIENCE, () => {
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
      screen.type(`${INSTAVM} shell ${cli.sandbox.id} -- bash --norc --noediting -i; echo "ended with $?"\r`);
      await screen.shows(/bash-[\d.]+[#$] /);
      screen.type('stty size; echo $TERM\r');
      await screen.shows('20 90\r\nxterm-256color');
      screen.terminal.resize(120, 40);
      screen.type('while [ "$(stty size)" = "20 90" ]; do sleep 0.1; done; stty size\r');
      await screen.shows('40 120');
      // It says itself that it is in the foreground: the terminal echoes what is typed before the shell has read it.
      screen.type("sh -c 'echo running $((40 + 2)); exec sleep 100'\r");
      await screen.shows('running 42');
      screen.type('\x03');
      screen.type('echo "interrupted: $?"\r');
      await screen.shows('interrupted: 130');
      screen.type('exit 7\r');
      await screen.shows('ended with 7');
      await screen.isSane();
    }));

  it('is the size that its window got while it was being connected', () =>
    inScreen(async (screen) => {
      screen.type(`${INSTAVM} shell ${cli.sandbox.id} --id sized -- bash --norc --noediting -i\r`);
      const isMade = () => cli.sandbox.pty.get('sized').then(Boolean, () => false);
      await expect.poll(isMade, { interval: 2 }).toBe(true);
      screen.terminal.resize(130, 33);
      await screen.shows(/bash-[\d.]+[#$] /);
      screen.type('while [ "$(stty size)" = "20 90" ]; do sleep 0.1; done; stty size; exit\r');
      await screen.shows('33 130');
    }));

  it('detaches with Enter ~ . and comes back to the same shell', () =>
    inScreen(async (screen) => {
      screen.type(`${INSTAVM} shell ${cli.sandbox.id} --id kept -- bash --norc --noediting -i\r`);
      await screen.shows(/bash-[\d.]+[#$] /);
      screen.type('mark=here\r~.');
      // The shell below has the terminal again.
      await screen.shows(/--attach kept[\s\S]*\n\$ $/);
      await screen.isSane();
      expect((await cli.sandbox.pty.get('kept')).alive).toBe(true);
      screen.type(`${INSTAVM} shell ${cli.sandbox.id} --attach kept; echo "ended with $?"\r`);
      await screen.shows('mark=here');
      screen.type('echo "still $mark"; exit 5\r');
      await screen.shows('still here');
      await screen.shows('ended with 5');
    }));

  it('detaches when its window is closed, and the shell lives on', async () => {
    // A terminal of its own, whose other end goes away as that of a closed window does.
    const argv = ['shell', cli.sandbox.id, '--id', 'window', '--', 'bash', '--norc', '--noediting', '-i'];
    const window = spawn(INSTAVM, argv, { env: cli.env });
    let text = '';
    window.onData((data) => {
      text += data;
    });
    await expect.poll(() => text).toMatch(/bash-[\d.]+[#$] /);
    window.write('mark=here; trap "echo was hung up" HUP\r');
    await expect.poll(() => text).toMatch(/HUP\r\n.*[#$] $/);
    (window as unknown as { destroy(): void }).destroy();
    await expect.poll(async () => (await cli.sandbox.pty.get('window')).viewers).toBe(0);
    const again = await cli.run(['shell', cli.sandbox.id, '--attach', 'window'], {
      input: 'echo "still $mark"; exit 5\n',
    });
    expect([again.code, again.stdout]).toEqual([5, expect.stringContaining('still here')]);
    expect(again.stdout).not.toMatch(/logout|was hung up\r\n/);
  });

  it('leaves the terminal sane when it is killed, and the program in the sandbox running', () =>
    inScreen(async (screen) => {
      screen.type(
        `${INSTAVM} shell ${cli.sandbox.id} --id orphan -- bash --norc --noediting -i; echo "ended with $?"\r`,
      );
      await screen.shows(/bash-[\d.]+[#$] /);
      screen.type('printf "\\033[?1049h\\033[?25l"; echo full screen\r');
      await screen.shows('\x1b[?1049h\x1b[?25lfull screen\r\n');
      const pids = execFileSync('pgrep', ['-f', `main.ts shell ${cli.sandbox.id} --id orphan`], { encoding: 'utf8' });
      process.kill(Number(pids.trim().split('\n')[0]), 'SIGTERM');
      await screen.shows('ended with 143');
      expect(screen.text).toContain('\x1b[?1049l\x1b[?25h');
      await screen.isSane();
      expect((await cli.sandbox.pty.get('orphan')).alive).toBe(true);
      await cli.sandbox.pty.kill('orphan');
    }));
});
