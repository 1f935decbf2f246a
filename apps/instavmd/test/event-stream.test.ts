/** Server-sent events between whoever tells them and a client that reads when it likes. */
import type { FastifyReply } from 'fastify';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { eventStream } from '../src/routes/event-stream.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('what is over is read to its end, however long that takes', async () => {
  const { body, send } = eventStream({ headers: () => {} } as never as FastifyReply, 'x', AbortSignal.any([]));
  await send({ last: true });
  body.end();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(String(Buffer.concat(await body.toArray()))).toBe('data: {"last":true}\n\n');
});
