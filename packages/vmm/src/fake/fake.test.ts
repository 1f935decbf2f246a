import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentClient } from '@instavm/agent-client';
import { newIncarnationId } from '@instavm/core';
import { GUEST_AGENT_PATH } from '@instavm/images';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { describeVmmContract } from '../contract/suite.ts';
import { createFakeVmm, fakeImages } from './index.ts';

const SIZE = { memoryMib: 256, vcpus: 1 };
let scratch: string;
beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'instavm-vmm-'));
});
afterEach(() => rm(scratch, { recursive: true, force: true }));

describeVmmContract('the fake backend', async () => {
  const scratch = await mkdtemp(join(tmpdir(), 'instavm-vmm-'));
  return {
    vmm: createFakeVmm(),
    images: fakeImages,
    size: SIZE,
    scratch,
    leftovers: async () => [],
    close: () => rm(scratch, { recursive: true, force: true }),
  };
});

it('a fake microVM leaves nothing, though a program still writes files when its terminal has hung up, as shells write their history', async () => {
  const { buildTemplate, restore } = createFakeVmm({ runDirectory: scratch, agentPath: GUEST_AGENT_PATH });
  const vm = await restore(await buildTemplate(fakeImages, SIZE, () => {}), newIncarnationId());
  const { pty } = await AgentClient.open(await vm.connect('control'), 60_000);
  const script = `trap '' HUP; for ((n = 0; n < 10000; n++)); do : > $HOME/$n || exit; ((n == 99)) && echo ready; done`;
  await pty.create({ id: 't', args: ['bash', '-c', script] });
  await expect.poll(async () => (await pty.get({ id: 't' })).endOffset).toBeGreaterThan(0n);
  await vm.kill();
  expect(await readdir(scratch)).toEqual([]);
});

it('a fake microVM that ends cuts its channel off as a real one does, and ends no call before', async () => {
  const { buildTemplate, restore } = createFakeVmm({ runDirectory: scratch });
  const template = await buildTemplate(fakeImages, SIZE, () => {});
  async function* start() {
    yield { message: { case: 'start', value: { command: { case: 'script', value: 'sleep 60' } } } } as const;
  }
  // What ended first was a matter of luck.
  for (let round = 0; round < 8; round++) {
    const vm = await restore(template, newIncarnationId());
    const { exec } = await AgentClient.open(await vm.connect('control'), 60_000);
    const calls = Array.from({ length: 8 }, () => exec.run(start())[Symbol.asyncIterator]());
    for (const call of calls) expect((await call.next()).value?.event.case).toBe('started');
    const failures = calls.map((call) => call.next().catch((error: unknown) => error));
    await vm.snapshot(join(scratch, `saved-${round}`), 'end');
    // Nobody here gave it up either, but so Node tells of a stream whose session is gone.
    const lost = expect.objectContaining({ reason: expect.stringMatching(/^(channel_lost|cancelled)$/) });
    expect(await Promise.all(failures)).toEqual(failures.map(() => lost));
  }
});
