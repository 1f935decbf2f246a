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

/** The answers of the tools so far, oldest first. */
function outputs(input: unknown): string[] {
  const items = input as readonly { type?: string; output?: unknown }[];
  return items.filter(({ type }) => type === 'function_call_result').map(({ output }) => JSON.stringify(output));
}

/** Types into the terminal that the last answer named, as a model would. */
const type = (chars: string, yieldTimeMs = 2_000) =>
  modelResponder(({ request }) => {
    const sessionId = /session ID (\d+)/.exec(outputs(request.input).at(-1) ?? '')?.[1];
    const call = { session_id: Number(sessionId), chars, yield_time_ms: yieldTimeMs };
    return [functionCall('write_stdin', call, { callId: `w${crypto.randomUUID()}` })];
  });
const open = (cmd: string) => [
  functionCall('exec_command', { cmd, tty: true, yield_time_ms: 2_000 }, { callId: `o${crypto.randomUUID()}` }),
];

describe('an agent with a terminal', () => {
  it('keeps a Python REPL and a shell open, edits in vim, interrupts, and reads every exit code', {
    timeout: 180_000,
  }, async () => {
    const model = new ScriptedModel([
      open('python3 -i'),
      type('answer = 6 * 7\n'),
      type('print("the answer plus one is", answer + 1)\n'),
      type('exit(3)\n', 10_000),
      open('bash --norc --noediting -i'),
      type('read -p "your name? " name\n'),
      type('Ada\n'),
      type('echo "hello, $name"\n'),
      type('vim notes.txt\n', 5_000),
      type('iwritten in vim\u001b:wq\n', 5_000),
      type('cat notes.txt; false; echo "status $?"\n'),
      type('sleep 100\n'),
      type('\u0003'),
      type('echo "after $?"\n'),
      type('exit 4\n', 10_000),
      [assistantMessage('done')],
    ]);
    const agent = new SandboxAgent({ name: 'T', model, instructions: 'Follow the script.' });
    const result = await run(agent, 'go', { sandbox: { client: provider }, maxTurns: 30 });
    expect(result.finalOutput).toBe('done');
    const told = outputs(result.history);
    expect(told).toHaveLength(15);
    const [repl, , sum, replEnd, shell, question, , greeting, editor, , note, , , interrupted, end] = told as [
      ...string[],
    ];
    expect(repl).toMatch(/Python 3\..*>>> /);
    expect(sum).toContain('the answer plus one is 43');
    expect(replEnd).toContain('Process exited with code 3');
    expect(shell).toContain('Process running with session ID');
    expect(question).toContain('your name?');
    expect(greeting).toContain('hello, Ada');
    // The alternate screen, and the name in the status line.
    expect(editor).toMatch(/\\u001b\[\?1049h.*notes\.txt/);
    expect(note).toMatch(/written in vim.*status 1/);
    expect(interrupted).toContain('after 130');
    expect(end).toContain('Process exited with code 4');
  });

  it('answers as soon as the program ends, whatever the yield time', async () => {
    const session = await provider.create({});
    const started = performance.now();
    const { exitCode, output } = await session.exec({ cmd: 'echo quick; exit 9', tty: true, yieldTimeMs: 30_000 });
    expect([exitCode, output]).toEqual([9, 'quick\r\n']);
    expect(performance.now() - started).toBeLessThan(15_000);
    await session.close();
  });

  it('runs as its user, in its directory, and sees its window change', async () => {
    const session = await provider.create({});
    await session.exec({ cmd: 'useradd -m ada && mkdir /srv/ada && chown ada /srv/ada' });
    const cmd =
      'id -un; pwd; stat -c %U "$(tty)"; echo $TERM; trap "stty size" WINCH; echo ready; while :; do sleep 0.1; done';
    const first = await session.exec({ cmd, tty: true, runAs: 'ada', workdir: '/srv/ada', yieldTimeMs: 4_000 });
    expect(first.output.split('\r\n').slice(0, 4)).toEqual(['ada', '/srv/ada', 'ada', 'xterm-256color']);
    const sessionId = first.sessionId ?? 0;
    await session.resizePty({ sessionId, cols: 132, rows: 43 });
    expect(await session.writeStdin({ sessionId, chars: '\n', yieldTimeMs: 3_000 })).toContain('43 132');
    await expect(session.resizePty({ sessionId: 1, cols: 80, rows: 24 })).rejects.toThrow(/no terminal session 1/);
    await session.stop();
    const sandbox = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl }).sandboxes.attach(
      session.state.sandboxId,
    );
    expect(await sandbox.pty.list()).toEqual([]);
    await session.close();
  });
});
