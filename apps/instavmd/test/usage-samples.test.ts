/** What sandboxes used: kept in rings, asked for as often as somebody looks, and counted where it passes. */
import { PassThrough } from 'node:stream';
import { type SandboxId, type SandboxRecord, systemClock } from '@instavm/core';
import { startTestDaemon } from '@instavm/testing';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { counted } from '../src/usage-samples/counted.ts';
import { FIELDS, type Field, Ring, SAMPLES_KEPT } from '../src/usage-samples/ring.ts';
import { type GuestNumbers, UsageSampler } from '../src/usage-samples/sampler.ts';
import { apiOf } from './api.ts';

const MIB = 1_024 ** 2;
const of = (value: number) => Object.fromEntries(FIELDS.map((field) => [field, value])) as Record<Field, number>;

describe('a ring of samples', () => {
  it('holds the newest, in order, however many were added', () => {
    fc.assert(
      fc.property(fc.nat(3 * SAMPLES_KEPT), (count) => {
        const ring = new Ring();
        for (let index = 0; index < count; index++) ring.add(new Date(index * 10_000), of(index));
        const kept = ring.samples();
        expect(kept.map(({ cpu }) => cpu)).toEqual(
          Array.from({ length: count }, (_, index) => index).slice(-SAMPLES_KEPT),
        );
        expect(kept.every(({ at, seconds }) => at.getTime() === seconds * 10_000)).toBe(true);
        expect(ring.length).toBe(kept.length);
      }),
      { numRuns: 20 },
    );
  });
});

describe('metrics', () => {
  const id = '00000000-0000-4000-8000-000000000001' as SandboxId;
  const recordOf = (of: SandboxId) => ({ id: of, size: { vcpus: 2, memoryMib: 512 } }) as SandboxRecord;
  const record = recordOf(id);
  let told: GuestNumbers;
  let asked: number;
  let sampler: UsageSampler;
  beforeEach(() => {
    vi.useFakeTimers();
    const disk = { diskTotalBytes: 4_096 * MIB, diskFreeBytes: 4_000 * MIB };
    told = { memoryTotalBytes: 512 * MIB, memoryAvailableBytes: 412 * MIB, ...disk, processes: 9, cpuTimeMs: 1_000 };
    asked = 0;
    const ask = async (): Promise<GuestNumbers> => {
      asked++;
      return told;
    };
    sampler = new UsageSampler({ clock: systemClock, ask });
    sampler.start();
  });
  afterEach(async () => {
    await sampler.stop();
    vi.useRealTimers();
  });
  const pass = (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1_000);

  it('are there after two answers, and are what was used between them', async () => {
    sampler.began(record);
    await pass(10);
    told = { ...told, cpuTimeMs: 6_000 };
    sampler.count(id, 'egressSentBytes', 100);
    sampler.count(id, 'egressSentBytes', 20);
    sampler.count(id, 'previewReceivedBytes', 7);
    await pass(10);
    const { samples, ...totals } = sampler.historyOf(id);
    expect(totals).toEqual({ memoryTotalBytes: 512 * MIB, diskTotalBytes: 4_096 * MIB });
    expect(samples).toHaveLength(1);
    expect(samples[0]).toMatchObject({
      ...{ seconds: 10, cpu: 0.25, memoryUsedBytes: 100 * MIB, diskUsedBytes: 96 * MIB, processes: 9 },
      ...{ egressSentBytes: 120, egressReceivedBytes: 0, previewSentBytes: 0, previewReceivedBytes: 7 },
    });
  });

  it('are asked for every ten seconds while somebody looks, and every minute otherwise', async () => {
    sampler.began(record);
    await pass(30);
    asked = 0;
    await pass(600);
    expect(asked).toBe(10);
    sampler.historyOf(id);
    asked = 0;
    await pass(55);
    expect(asked).toBe(5);
    await pass(120);
    expect(asked).toBeLessThan(9);
  });

  it('of what is suspended are kept, and not asked for; they go on with its next incarnation', async () => {
    sampler.began(record);
    await pass(20);
    sampler.ended(record);
    asked = 0;
    await pass(600);
    expect([asked, sampler.historyOf(id).samples.length]).toEqual([0, 1]);
    sampler.began(record);
    // What was used while nobody counted is in no sample.
    told = { ...told, cpuTimeMs: 900_000 };
    await pass(20);
    expect(sampler.historyOf(id).samples.map(({ cpu }) => cpu)).toEqual([0, 0]);
  });

  it('believe no guest more than there can be', async () => {
    sampler.began(record);
    await pass(10);
    const lies = { memoryTotalBytes: -1, memoryAvailableBytes: 2 ** 64, diskTotalBytes: Number.NaN, diskFreeBytes: -5 };
    told = { ...told, ...lies, processes: Number.POSITIVE_INFINITY, cpuTimeMs: 2 ** 64 };
    await pass(10);
    const { samples, ...totals } = sampler.historyOf(id);
    expect(totals).toEqual({ memoryTotalBytes: 0, diskTotalBytes: 0 });
    expect(samples[0]).toMatchObject({ cpu: 1, memoryUsedBytes: 0, diskUsedBytes: 0, processes: 0 });
  });

  it('of what has ended are kept for a bounded number', async () => {
    const ids = Array.from({ length: 600 }, (_, index) => `id ${index}` as SandboxId);
    for (const each of ids) sampler.began(recordOf(each));
    await pass(20);
    for (const each of ids) sampler.ended(recordOf(each));
    const kept = ids.filter((each) => sampler.historyOf(each).samples.length > 0);
    expect(kept).toHaveLength(500);
    expect(kept[0]).toBe('id 100');
  });
});

describe('a counted connection', () => {
  it('carries the same bytes, and counts them both ways', async () => {
    const count = { read: 0, written: 0 };
    const stream = counted(
      new PassThrough(),
      (bytes) => {
        count.read += bytes;
      },
      (bytes) => {
        count.written += bytes;
      },
    );
    stream.cork();
    stream.write('é');
    stream.write(Buffer.alloc(1_000));
    stream.uncork();
    stream.end();
    let size = 0;
    for await (const chunk of stream) size += chunk.length;
    expect([size, count]).toEqual([1_002, { read: 1_002, written: 1_002 }]);
  });
});

describe('GET /v2/sandboxes/{id}/metrics', () => {
  it('answers for what runs and for what has ended', async () => {
    const daemon = await startTestDaemon({ vmm: 'fake' });
    try {
      const api = apiOf(daemon);
      const sid = await api.createSession();
      const answer = await api.request('GET', `/v2/sandboxes/${sid}/metrics`);
      expect([answer.status, answer.body]).toEqual([200, expect.objectContaining({ vcpu_count: 2, samples: [] })]);
      await api.request('DELETE', `/v2/sandboxes/${sid}`);
      expect((await api.request('GET', `/v2/sandboxes/${sid}/metrics`)).status).toBe(200);
    } finally {
      await daemon.stop();
    }
  });
});
