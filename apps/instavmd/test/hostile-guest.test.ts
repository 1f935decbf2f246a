/** What a guest says that is no guest of ours any more: what it sends costs it, not the daemon, and is answered by a name of the catalog. */
import { AgentError } from '@instavm/agent-client';
import { errorBody, InstaVMError } from '@instavm/wire';
import { describe, expect, it } from 'vitest';
import { guestError } from '../src/guest/errors.ts';
import type { Guest } from '../src/guest/guest.ts';
import { OutputBudget } from '../src/guest/output-budget.ts';
import { runToEnd } from '../src/guest/run.ts';

const MIB = 1024 * 1024;
const REQUEST = { language: 'bash', command: 'true', timeoutMs: 1_000, answerWithinMs: 10_000 } as const;
const EXIT = { event: { case: 'exit', value: { code: 0, timedOut: false, wallTimeUs: 0n, cpuTimeUs: 0n } } };

/** Answers every command with these pieces of output. */
const guestThatWrites = (pieces: Iterable<Uint8Array>): Guest => {
  async function* run() {
    for (const value of pieces) yield { event: { case: 'stdout', value } };
    yield EXIT;
  }
  return { agent: { exec: { run } } } as unknown as Guest;
};

describe('output that is collected', () => {
  it('keeps nothing of the messages that it came in', async () => {
    const messages = Array.from({ length: 16 }, () => new Uint8Array(MIB));
    const guest = guestThatWrites(messages.map((message, index) => message.fill(index).subarray(0, 1)));
    const { stdout } = await runToEnd(guest, REQUEST, new OutputBudget('acct_a'));
    expect(Buffer.concat(stdout)).toEqual(Buffer.from(messages.map((_, index) => index)));
    expect(stdout.reduce((total, { buffer }) => total + buffer.byteLength, 0)).toBeLessThan(1024);
  });

  it('is whole, and in few pieces, however small the ones are that it comes in', async () => {
    function* crumbs() {
      for (let at = 0; at < 200_000; at++) {
        yield new Uint8Array(0);
        yield Uint8Array.of(at % 251);
      }
    }
    const { stdout } = await runToEnd(guestThatWrites(crumbs()), REQUEST, new OutputBudget('acct_a'));
    expect(stdout.length).toBeLessThan(20);
    const all = Buffer.concat(stdout);
    expect(all.length).toBe(200_000);
    expect(all.every((byte, at) => byte === at % 251)).toBe(true);
  });
});

it('a command that nobody waits for any more when its guest is awake is cancelled', async () => {
  async function* run(_messages: unknown, { signal }: { signal: AbortSignal }) {
    if (signal.aborted) throw new AgentError('cancelled', 'before it began');
    yield EXIT;
  }
  const guest = { agent: { exec: { run } } } as unknown as Guest;
  const command = runToEnd(guest, { ...REQUEST, abandoned: AbortSignal.abort() }, new OutputBudget('acct_a'));
  await expect(command).rejects.toMatchObject({ code: 'guest_lost' });
});

it.each(['constructor', '__proto__', 'unheard_of'])(
  'a reason that is no reason (%s) is a breach of protocol',
  (word) => {
    const error = guestError(new AgentError(word, 'boo'));
    expect(error).toBeInstanceOf(InstaVMError);
    expect(error).toMatchObject({ code: 'guest_protocol', status: 502 });
  },
);

it('what a VMM and a console said is for the log, and in no answer', () => {
  const details = { diagnostics: 'cannot open /var/lib/instavm', console: 'root:', retryAfterMs: 5 };
  expect(errorBody(new InstaVMError('boot_failed', 'no', { details }), 'id').details).toEqual({ retryAfterMs: 5 });
  const said = { diagnostics: 'cannot open /var/lib/instavm' };
  expect(errorBody(new InstaVMError('boot_failed', 'no', { details: said }), 'id')).not.toHaveProperty('details');
});
