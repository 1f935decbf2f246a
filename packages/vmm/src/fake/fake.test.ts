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
