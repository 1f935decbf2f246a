/** What every WebSocket of the server may bring: text frames that are JSON, and an answer in place of the upgrade. */
import type WebSocket from 'ws';
import { errorFromBody, type InstaVMError } from './errors.ts';

/** @returns undefined for what is no frame */
export function jsonFrame(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    // A newer server may say what this client does not know.
    return undefined;
  }
}

/** @param tell what the server answered instead of taking the connection, also when that broke off; the socket is the caller's to terminate */
export function whenRefused(socket: WebSocket, tell: (refusal: InstaVMError) => void): void {
  socket.on('unexpected-response', (_request, answer) => {
    const pieces: Buffer[] = [];
    answer.on('data', (piece: Buffer) => pieces.push(piece));
    answer.on('close', () => tell(errorFromBody(answer.statusCode, Buffer.concat(pieces).toString('utf8'))));
  });
}
