import { PassThrough, Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { Lane } from '../src/gateway/lane.ts';

/** Takes the next of what was written when it is told to. */
class SlowSink extends Writable {
  #next: ((error?: Error | null) => void) | undefined;

  constructor(highWaterMark: number) {
    super({ highWaterMark });
  }

  override _write(_chunk: Buffer, _encoding: string, next: (error?: Error | null) => void): void {
    this.#next = next;
  }

  take(error?: Error): void {
    this.#next?.(error);
  }
}

const tick = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));

function start(highWaterMark = 4) {
  const source = new PassThrough();
  const sink = new SlowSink(highWaterMark);
  sink.on('error', () => {});
  const lane = new Lane(source, sink);
  source.on('data', (chunk: Buffer) => lane.write(chunk));
  return { source, sink, lane };
}

describe('a lane', () => {
  it('stops its source while the sink is full, and lets it go on afterwards', async () => {
    const { source, sink, lane } = start();
    source.write('12345');
    await tick();
    expect([source.isPaused(), lane.delivered]).toEqual([true, 0]);
    sink.take();
    await tick();
    expect([source.isPaused(), lane.delivered]).toEqual([false, 5]);
  });

  it('whose sink is full stays closed when its pause ends', async () => {
    const { source, sink, lane } = start();
    source.write('12345');
    await tick();
    lane.pause(5);
    await tick(30);
    expect(source.isPaused()).toBe(true);
    sink.take();
    await tick();
    expect(source.isPaused()).toBe(false);
  });

  it('that is paused stays closed when its sink has room again', async () => {
    const { source, sink, lane } = start();
    source.write('12345');
    await tick();
    lane.pause(50);
    sink.take();
    await tick(10);
    expect(source.isPaused()).toBe(true);
    await tick(80);
    expect(source.isPaused()).toBe(false);
  });

  it('lets only so many small pieces wait, whatever their bytes', async () => {
    const { source } = start(1_000_000);
    for (let at = 0; at < 1_000; at++) source.write('x');
    await tick();
    expect(source.isPaused()).toBe(true);
    expect(source.readableLength + source.writableLength).toBeGreaterThan(900);
  });

  it('does not count what its sink could not take, and does nothing after its end', async () => {
    const { source, sink, lane } = start();
    source.write('12345');
    await tick();
    lane.pause(5);
    lane.close();
    sink.take(new Error('gone'));
    await tick(30);
    expect([source.isPaused(), lane.delivered]).toEqual([true, 0]);
  });
});
