import { randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentClient } from '@instavm/agent-client';
import { newIncarnationId, type TemplateKey } from '@instavm/core';
import { smallDisk } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeVmmContract } from '../contract/suite.ts';
import { findTemplate } from './template.ts';
import { makeBackend, SIZE, shell } from './test/backend.ts';
import { makeTemplateAgain } from './test/made-again.ts';

/** On a busy machine that emulates, a guest may have to be booted several times before it has a clock. */
const BOOT_MS = 600_000;

describeVmmContract('the QEMU backend', async () => ({ ...(await makeBackend()), size: SIZE }));

describe('a QEMU snapshot', () => {
  it('keeps memory, processes and listeners, stores little, and is refused when it is damaged', async () => {
    const backend = await makeBackend();
    const [{ vmm }, template] = [backend, await backend.template()];
    const listen = 'python3 -m http.server 8000 --bind 127.0.0.1 --directory /dev/shm >/dev/null 2>&1 &';
    const count = 'i=0; while :; do echo $((i+=1)) > /dev/shm/count; sleep 0.02; done >/dev/null 2>&1 & disown -a';
    const fill = 'head -c 20M /dev/urandom > /dev/shm/data; sha256sum < /dev/shm/data';
    const first = await vmm.restore(template, newIncarnationId());
    const sum = await shell(
      first,
      `${listen} ${count}; ${fill}; until curl -s localhost:8000 >/dev/null; do sleep 0.1; done`,
    );
    // Between the truncation and the write there is nothing in it.
    const counted = 'until n=$(cat /dev/shm/count) && [ -n "$n" ]; do :; done; echo $n';
    const before = Number(await shell(first, counted));
    const directory = join(backend.scratch, 'kept');
    const snapshot = await first.snapshot(directory, 'end');
    // 20 MiB of its own, and what two processes and the shell touched.
    expect(snapshot.storedBytes).toBeGreaterThan(20 * 1024 * 1024);
    expect(snapshot.storedBytes).toBeLessThan(100 * 1024 * 1024);
    const found = await vmm.findSnapshot(directory);
    const again = await vmm.restore(found ?? snapshot, newIncarnationId());
    expect(await shell(again, 'sha256sum < /dev/shm/data; curl -s localhost:8000/data | sha256sum')).toBe(
      `${sum}\n${sum}`,
    );
    const after = Number(await shell(again, counted));
    expect(after).toBeGreaterThanOrEqual(before);
    expect(Number(await shell(again, `sleep 0.5; ${counted}`))).toBeGreaterThan(after);
    await again.kill();
    const state = await open(join(directory, 'state'), 'r+');
    await state.write('not what was stored here', Math.floor((await state.stat()).size / 2));
    await state.close();
    await expect(vmm.restore(found ?? snapshot, newIncarnationId())).rejects.toMatchObject({
      code: 'snapshot_damaged',
    });
    await writeFile(join(directory, 'state'), 'torn');
    expect(await vmm.findSnapshot(directory)).toBeUndefined();
    await writeFile(join(directory, 'snapshot.json'), '{"templateKey": 3');
    expect(await vmm.findSnapshot(directory)).toBeUndefined();
    await rm(directory, { recursive: true, force: true });
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });

  it('that finds no room leaves nothing, and the microVM runs on', async (context) => {
    const disk = await smallDisk(24);
    if (disk === undefined) return context.skip('this process may not mount a small filesystem');
    const backend = await makeBackend();
    try {
      const { vmm } = backend;
      const vm = await vmm.restore(await backend.template(), newIncarnationId());
      const sum = await shell(vm, 'head -c 40M /dev/urandom > /dev/shm/data; sha256sum < /dev/shm/data');
      for (const then of ['continue', 'end'] as const)
        await expect(vm.snapshot(join(disk.path, 'kept'), then)).rejects.toMatchObject({
          code: 'capacity_unavailable',
        });
      expect(await readdir(disk.path)).toEqual([]);
      expect(await shell(vm, 'sha256sum < /dev/shm/data')).toBe(sum);
      const directory = join(backend.scratch, 'kept');
      await vm.snapshot(directory, 'end');
      expect(await vmm.findSnapshot(directory)).toBeDefined();
    } finally {
      await disk.remove();
      await backend.close();
    }
  });
});

describe('a template that is made again under its key', () => {
  it(
    'is not taken for the first one: snapshots of that wait for it, and what ran meanwhile is saved over the second',
    async () => {
      await makeTemplateAgain();
    },
    BOOT_MS,
  );
});

describe('clones of one template', () => {
  it('that end before they answer say what QEMU said', async () => {
    const backend = await makeBackend();
    const binary = join(backend.scratch, 'qemu');
    const ends = `#!/usr/bin/python3
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind('qmp.sock')
listening.listen()
listening.accept()
sys.exit('no firmware')
`;
    await writeFile(binary, ends, { mode: 0o755 });
    await chmod(backend.scratch, 0o755);
    const restoring = backend.again({ binary }).restore(await backend.template(), newIncarnationId());
    await expect(restoring).rejects.toMatchObject({
      code: 'boot_failed',
      details: { diagnostics: expect.stringContaining('no firmware') },
    });
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });

  it('have their own hostname, machine-id and random numbers, and the right time', async () => {
    const backend = await makeBackend();
    const [{ vmm }, template] = [backend, await backend.template()];
    const describeClone = async (hostname: string): Promise<string[]> => {
      const vm = await vmm.restore(template, newIncarnationId());
      try {
        const agent = await AgentClient.open(await vm.connect('control'), 60_000);
        const machineId = randomBytes(16).toString('hex');
        const unixTimeNs = BigInt(Date.now()) * 1_000_000n;
        await agent.lifecycle.personalize({ unixTimeNs, entropy: randomBytes(64), hostname, machineId });
        async function* script() {
          const value = 'hostname; cat /etc/machine-id; head -c 16 /dev/urandom | base64; date +%s';
          yield { message: { case: 'start', value: { command: { case: 'script', value } } } } as const;
        }
        let text = '';
        for await (const { event } of agent.exec.run(script()))
          if (event.case === 'stdout') text += Buffer.from(event.value).toString();
        const [name = '', id = '', random = '', seconds = ''] = text.trim().split('\n');
        expect([name, id]).toEqual([hostname, machineId]);
        expect(Math.abs(Number(seconds) - Date.now() / 1000)).toBeLessThan(30);
        return [name, id, random];
      } finally {
        await vm.kill();
      }
    };
    const [one, two] = [await describeClone('one'), await describeClone('two')];
    for (const [index, value] of one.entries()) expect(two[index]).not.toBe(value);
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });

  it('left by a dead daemon are found by their directory and ended', async () => {
    const backend = await makeBackend();
    const [{ vmm }, template] = [backend, await backend.template()];
    const vm = await vmm.restore(template, newIncarnationId());
    expect(await backend.again().reapLeftovers()).toBe(1);
    expect((await vm.exited).requested).toBe(false);
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });
});

describe('a template on disk', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'instavm-templates-'));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  it('is not there while half of it is', async () => {
    const key = 'half' as TemplateKey;
    await mkdir(join(directory, key));
    await writeFile(join(directory, key, 'memory'), 'x');
    expect(await findTemplate(directory, key)).toBeUndefined();
  });

  it('is not there when its manifest is damaged', async () => {
    const key = 'damaged' as TemplateKey;
    await mkdir(join(directory, key));
    await writeFile(join(directory, key, 'template.json'), '{"key":');
    expect(await findTemplate(directory, key)).toBeUndefined();
  });
});
