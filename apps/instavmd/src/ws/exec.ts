/** One command over one WebSocket (docs/reference/api-v2.md, "Streaming exec"), with back-pressure in both directions. */
import type { ExecEvent, ExecExit } from '@instavm/agent-client';
import { ExecControl, ExecStart, errorBody, InstaVMError, SIGNALS, STDERR_FRAME, STDOUT_FRAME } from '@instavm/wire';
import type { FastifyBaseLogger } from 'fastify';
import type { RawData, WebSocket } from 'ws';
import { guestError } from '../guest/errors.ts';
import type { Guest } from '../guest/guest.ts';
import { signalName } from '../guest/signals.ts';
import { keepOpen, parseFrame, sendFrame } from './frames.ts';
import { MessageQueue } from './message-queue.ts';

/** A client that upgrades and then says nothing holds a socket no longer than this. */
const START_DEADLINE_MS = 30_000;
/** Input waiting for the guest, beyond which the socket is not read. */
const INPUT_HIGH_WATER_BYTES = 1024 * 1024;
const CLOSE_NORMAL = 1000;
const CLOSE_FAILED = 4500;

type GuestMessage =
  | { case: 'start'; value: ReturnType<typeof startMessage> }
  | { case: 'stdin'; value: Uint8Array<ArrayBuffer> }
  | { case: 'stdinEnd'; value: Record<string, never> }
  | { case: 'signal'; value: number };

export async function relayExec(socket: WebSocket, guest: Guest, log: FastifyBaseLogger): Promise<void> {
  const stop = new AbortController();
  const input = new MessageQueue<GuestMessage>(INPUT_HIGH_WATER_BYTES, {
    full: () => socket.pause(),
    drained: () => socket.resume(),
  });
  const openedAt = performance.now();
  keepOpen(socket);
  socket.on('error', (error) => log.debug({ err: error }, 'exec socket'));
  socket.once('close', () => {
    input.end();
    stop.abort();
  });
  try {
    await started(socket, input, (error) => {
      fail(socket, error);
      stop.abort();
    });
    for await (const event of guest.agent.exec.run(wrapped(input), { signal: stop.signal })) {
      // The guest keeps the call open until its input ends, so that nothing that is still unread is cut off.
      if (event.event.case === 'exit') input.end();
      await send(socket, event);
    }
  } catch (error) {
    // After the client has gone nobody can be told, and the abort is our own.
    if (socket.readyState === socket.OPEN) fail(socket, guestError(error));
    return;
  } finally {
    input.discard();
    log.info({ ms: Math.round(performance.now() - openedAt) }, 'exec ended');
  }
  socket.close(CLOSE_NORMAL);
}

/**
 * Reads every frame from the first on: a client may send the start, its input and more in one go. Resolves with the start.
 * @param onBad for what is wrong in later frames
 */
function started(socket: WebSocket, input: MessageQueue<GuestMessage>, onBad: (error: unknown) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let start: ExecStart | undefined;
    const late = (): void => reject(new InstaVMError('invalid_argument', 'no start frame came'));
    const timer = setTimeout(late, START_DEADLINE_MS);
    socket.once('close', () => {
      clearTimeout(timer);
      late();
    });
    socket.on('message', (data, isBinary) => {
      try {
        if (start !== undefined) return takeFrame(input, start, data, isBinary);
        start = parseFrame(ExecStart, isBinary ? undefined : data);
        clearTimeout(timer);
        input.push({ case: 'start', value: startMessage(start) }, 0);
        resolve();
      } catch (error) {
        if (start === undefined) reject(error);
        else onBad(error);
      }
    });
  });
}

function takeFrame(input: MessageQueue<GuestMessage>, start: ExecStart, data: RawData, isBinary: boolean): void {
  if (isBinary) {
    if (!start.stdin) throw new InstaVMError('invalid_argument', 'stdin was not asked for in the start frame');
    const bytes = data as Buffer;
    input.push({ case: 'stdin', value: bytes as Uint8Array<ArrayBuffer> }, bytes.length);
    return;
  }
  const control = parseFrame(ExecControl, data);
  if (control.type === 'stdin_end') input.push({ case: 'stdinEnd', value: {} }, 0);
  else input.push({ case: 'signal', value: SIGNALS[control.signal] }, 0);
}

function startMessage(start: ExecStart) {
  const { argv, script = '', env = {}, cwd = '', user = '', stdin, timeout_ms: timeoutMs } = start;
  const command =
    argv === undefined
      ? ({ case: 'script', value: script } as const)
      : ({ case: 'argv', value: { args: argv } } as const);
  return { command, env, cwd, user, stdin, timeoutMs };
}

async function* wrapped(input: MessageQueue<GuestMessage>) {
  for await (const message of input) yield { message };
}

/** A slow client slows the command. */
function send(socket: WebSocket, { event }: ExecEvent): Promise<void> | undefined {
  switch (event.case) {
    case 'started':
      return sendFrame(socket, JSON.stringify({ type: 'started', pid: event.value.pid }));
    case 'stdout':
      return sendFrame(socket, Buffer.concat([STDOUT_PREFIX, event.value]));
    case 'stderr':
      return sendFrame(socket, Buffer.concat([STDERR_PREFIX, event.value]));
    case 'exit':
      return sendFrame(socket, JSON.stringify(exitFrame(event.value)));
    default:
      throw new InstaVMError('guest_protocol', 'the guest sent an event of no known kind');
  }
}

const STDOUT_PREFIX = Buffer.of(STDOUT_FRAME);
const STDERR_PREFIX = Buffer.of(STDERR_FRAME);

const exitFrame = (exit: ExecExit) => ({
  type: 'exit',
  exit_code: exit.code,
  signal: signalName(exit.signal),
  timed_out: exit.timedOut,
  wall_time_ms: Number(exit.wallTimeUs) / 1000,
  cpu_time_ms: Number(exit.cpuTimeUs) / 1000,
});

function fail(socket: WebSocket, error: unknown): void {
  const body = errorBody(guestError(error), crypto.randomUUID());
  socket.send(JSON.stringify({ type: 'error', ...body }));
  socket.close(CLOSE_FAILED, body.code);
}
