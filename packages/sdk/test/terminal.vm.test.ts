/** Terminals in a real microVM: an agent that keeps shells open over many calls, and what a person would run in one. */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { run, setTraceProcessors } from '@openai/agents';
import { SandboxAgent } from '@openai/agents/sandbox';
import { assistantMessage, functionCall, modelResponder, ScriptedModel } from '@openai/agents/testing';
import { InstaVM } from 'instavm';
import { InstaVMSandboxClient } from 'instavm/openai-agents';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

setTraceProcessors([]);

let daemon: TestDaemon;
let provider: InstaVMSandboxClient;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'qemu' });
  provider = new InstaVMSandboxClient({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
});
afterAll(() => daemon?.stop());

/** A command line or what is typed into the terminal that is open, and what it shows when it is time for the next. */
type Move = { readonly until: RegExp } & ({ readonly cmd: string } | { readonly chars: string });

/** Of five seconds each, at least. */
const MOST_LOOKS = 30;

/** The answers of the tools so far, oldest first. */
function outputs(input: unknown): string[] {
  const items = input as readonly { type?: string; output?: string | { readonly text: string } }[];
  return items
    .filter(({ type }) => type === 'function_call_result')
    .map(({ output = '' }) => (typeof output === 'string' ? output : output.text));
}

/** A model that makes one move after another, and looks again for as long as the terminal is not there yet. @param seen gets what each had for an answer */
function typist(moves: readonly Move[], seen: string[]): ScriptedModel {
  const model = new ScriptedModel();
  const call = (name: string, args: object) => [
    functionCall(name, { ...args, yield_time_ms: 1_000 }, { callId: `c${crypto.randomUUID()}` }),
  ];
  let looks = 0;
  const step = modelResponder(({ request }) => {
    const [head = '', text = ''] = (outputs(request.input).at(-1) ?? '').split(/(?<=^Output:\n)/m);
    const session_id = Number(/session ID (\d+)/.exec(head)?.[1]);
    const before = moves[seen.length - 1];
    if (before !== undefined) {
      // What is said of the process comes last, once.
      const [shown = ''] = (seen.pop() ?? '').split('\0');
      const now = `${shown}${text}\0${head}`;
      seen.push(now);
      model.enqueue(step);
      if (!before.until.test(now) && session_id > 0 && ++looks < MOST_LOOKS)
        return call('write_stdin', { session_id, chars: '' });
    } else model.enqueue(step);
    looks = 0;
    const next = moves[seen.length];
    if (next === undefined) return [assistantMessage('done')];
    seen.push('');
    return 'cmd' in next
      ? call('exec_command', { cmd: next.cmd, tty: true })
      : call('write_stdin', { session_id, chars: next.chars });
  });
  model.enqueue(step);
  return model;
}

const PROMPT = /# \0/;

describe('an agent with a terminal', () => {
  it('keeps a Python REPL and a shell open, edits in vim, interrupts, and reads every exit code', async () => {
    const moves: Move[] = [
      { cmd: 'python3 -i', until: /Python 3\..*>>> \0/s },
      { chars: 'answer = 6 * 7\n', until: /7\r\n>>> \0/ },
      { chars: 'print("the answer plus one is", answer + 1)\n', until: /\r\nthe answer plus one is 43\r\n>>> / },
      { chars: 'exit(3)\n', until: /\0.*Process exited with code 3/s },
      { cmd: 'bash --norc --noediting -i', until: PROMPT },
      { chars: 'read -p "your name? " name\n', until: /\r\nyour name\? \0/ },
      { chars: 'Ada\n', until: PROMPT },
      { chars: 'echo "hello, $name"\n', until: /\r\nhello, Ada\r\n.*# \0/s },
      // The alternate screen, and the name in the status line.
      { chars: 'vim notes.txt\n', until: /\[\?1049h.*notes\.txt/s },
      { chars: 'iwritten in vim\u001b:wq\n', until: /\[\?1049l.*# \0/s },
      { chars: 'cat notes.txt; false; echo "status $?"\n', until: /\r\nwritten in vim\r\nstatus 1\r\n.*# \0/s },
      { chars: "sh -c 'echo asleep; exec sleep 1000'\n", until: /\r\nasleep\r\n/ },
      { chars: '\u0003', until: PROMPT },
      { chars: 'echo "after $?"\n', until: /\r\nafter 130\r\n.*# \0/s },
      { chars: 'exit 4\n', until: /\0.*Process exited with code 4/s },
    ];
    const seen: string[] = [];
    const agent = new SandboxAgent({ name: 'T', model: typist(moves, seen), instructions: 'Follow the script.' });
    const result = await run(agent, 'go', { sandbox: { client: provider }, maxTurns: moves.length + MOST_LOOKS });
    for (const [at, { until }] of moves.entries()) expect(seen[at]).toMatch(until);
    expect(result.finalOutput).toBe('done');
  });

  it('answers as soon as the program ends, whatever the yield time', async () => {
    const session = await provider.create({});
    const started = performance.now();
    const { exitCode, output } = await session.exec({ cmd: 'echo quick; exit 9', tty: true, yieldTimeMs: 30_000 });
    expect([exitCode, output]).toEqual([9, 'quick\r\n']);
    expect(performance.now() - started).toBeLessThan(29_000);
    await session.close();
  });

  it('runs as its user, in its directory, and sees its window change', async () => {
    const session = await provider.create({});
    await session.exec({ cmd: 'useradd -m ada && mkdir /srv/ada && chown ada /srv/ada' });
    const cmd =
      'id -un; pwd; stat -c %U "$(tty)"; echo $TERM; trap "stty size" WINCH; echo ready; while :; do sleep 0.1; done';
    const first = await session.exec({ cmd, tty: true, runAs: 'ada', workdir: '/srv/ada', yieldTimeMs: 1_000 });
    const sessionId = first.sessionId ?? 0;
    // What is new, as often as it takes.
    const shows = async (text: string, before = ''): Promise<string> => {
      let all = before;
      for (let looks = 0; looks < MOST_LOOKS && !all.includes(text); looks++)
        all += await session.writeStdin({ sessionId });
      expect(all).toContain(text);
      return all;
    };
    const output = await shows('ready', first.output);
    expect(output).toMatch(/^ada\r\n\/srv\/ada\r\nada\r\nxterm-256color\r\nready\r\n/);
    await session.resizePty({ sessionId, cols: 132, rows: 43 });
    await shows('43 132');
    await expect(session.resizePty({ sessionId: 1, cols: 80, rows: 24 })).rejects.toThrow(/no terminal session 1/);
    await session.stop();
    const sandbox = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl }).sandboxes.attach(
      session.state.sandboxId,
    );
    expect(await sandbox.pty.list()).toEqual([]);
    await session.close();
  });
});
