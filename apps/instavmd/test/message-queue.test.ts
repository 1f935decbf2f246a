/** Messages from a socket to whoever takes them, and when the socket is told to wait. */
import { expect, it } from 'vitest';
import { MessageQueue } from '../src/ws/message-queue.ts';

it('a socket whose messages wait for another taker waits as well', () => {
  let isPaused = false;
  const flow = { full: () => (isPaused = true), drained: () => (isPaused = false) };
  const [lost, next] = [new MessageQueue<string>(10, flow), new MessageQueue<string>(10, flow)];
  lost.push('more than may wait', 18);
  expect(isPaused).toBe(true);
  lost.moveTo(next);
  expect(isPaused).toBe(true);
  next.discard();
  expect(isPaused).toBe(false);
});
