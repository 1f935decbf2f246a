/**
 * The host's end of a guest's vsock: a connection to Firecracker's Unix socket, on which the host names the guest's port and is told that it is
 * connected (Firecracker: docs/vsock.md, "Host-Initiated Connections").
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError, synchronize } from '@instavm/agent-client';

/** `OK 4294967295` and its line end. */
const MAX_ANSWER_BYTES = 32;
const LINE_END = 0x0a;
/**
 * An attempt that came before the guest had reset its connections of before the snapshot may never be answered; the next one is. On a host that is
 * too busy for an answer in this time each waits twice as long as the one before.
 */
const FIRST_ATTEMPT_MS = 3_000;
const RETRY_MS = 5;

export type VsockTarget = {
  readonly port: number;
  /** Has the agent answer a SYNC first: a connection that is accepted right after a restore may be reset once. */
  readonly proven: boolean;
};

/**
 * @param connect opens the Unix socket; undefined when it is not there
 * @param gone true when waiting is in vain
 * @returns undefined when the guest cannot be reached in time
 */
export async function connectVsock(
  connect: () => Promise<Socket | undefined>,
  { port, proven }: VsockTarget,
  deadlineMs: number,
  gone: () => boolean,
): Promise<Socket | undefined> {
  let attemptMs = FIRST_ATTEMPT_MS;
  for (const until = performance.now() + deadlineMs; performance.now() < until && !gone(); await sleep(RETRY_MS)) {
    const startedAt = performance.now();
    const socket = await connect();
    if (socket === undefined) continue;
    // No attempt takes longer than there is time.
    const patience = (): number => Math.max(1, Math.min(attemptMs, until - performance.now()));
    if ((await greeted(socket, port, patience())) && (!proven || (await answers(socket, patience())))) return socket;
    socket.destroy();
    if (performance.now() - startedAt >= attemptMs) attemptMs *= 2;
  }
  return undefined;
}

function greeted(socket: Socket, port: number, deadlineMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    let answer = Buffer.alloc(0);
    const finish = (connected: boolean): void => {
      clearTimeout(timer);
      socket.off('readable', onReadable).off('close', onEnd).off('end', onEnd);
      resolve(connected);
    };
    const onEnd = (): void => finish(false);
    const onReadable = (): void => {
      // A byte at a time: what follows the line belongs to the guest.
      for (let byte = socket.read(1) as Buffer | null; byte !== null; byte = socket.read(1) as Buffer | null) {
        const isWhole = byte[0] === LINE_END;
        if (!isWhole) answer = Buffer.concat([answer, byte]);
        if (!isWhole && answer.length <= MAX_ANSWER_BYTES) continue;
        finish(isWhole && /^OK \d+$/.test(answer.toString('latin1')));
        return;
      }
    };
    const timer = setTimeout(onEnd, deadlineMs);
    socket.on('readable', onReadable).on('close', onEnd).on('end', onEnd);
    // Every failure is seen as the close; without a listener it would end the process.
    socket.on('error', () => {});
    socket.write(`CONNECT ${port}\n`);
  });
}

async function answers(socket: Socket, deadlineMs: number): Promise<boolean> {
  try {
    await synchronize(socket, deadlineMs);
    return true;
  } catch (error) {
    if (error instanceof AgentError) return false;
    throw error;
  }
}
