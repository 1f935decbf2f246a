/** What every backend of the Vmm port does. The backends' own tests call this with a way to make one. */
import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentClient } from '@instavm/agent-client';
import {
  type GuestImages,
  type MachineSize,
  type MicroVm,
  newIncarnationId,
  type Template,
  type Vmm,
  type VmSnapshot,
} from '@instavm/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeTunnels } from './tunnels.ts';

export type VmmUnderTest = {
  readonly vmm: Vmm;
  readonly images: GuestImages;
  readonly size: MachineSize;
  /** An empty directory of the test's own, for snapshots. */
  readonly scratch: string;
  /** What is left of the microVMs: processes, sockets, files. Empty when all are gone. */
  leftovers(): Promise<string[]>;
  close(): Promise<void>;
};

const ATTACH_MS = 60_000;
/** Every clone is told its name through the environment, which each backend's guest has. */
const WHO = 'printenv CLONE_NAME';

export function describeVmmContract(name: string, make: () => Promise<VmmUnderTest>): void {
  describe(`the VMM contract, kept by ${name}`, () => {
    let under: VmmUnderTest;
    let template: Template;

    beforeAll(async () => {
      under = await make();
      const key = under.vmm.templateKey(under.images, under.size);
      template =
        (await under.vmm.findTemplate(key)) ?? (await under.vmm.buildTemplate(under.images, under.size, () => {}));
    });
    afterAll(async () => {
      expect(await under.leftovers()).toEqual([]);
      await under.close();
    });

    /** A clone with its guest attached and personalized; both end with the test body. */
    const withClone = async <T>(
      hostname: string,
      body: (agent: AgentClient, vm: MicroVm) => Promise<T>,
    ): Promise<T> => {
      const vm = await under.vmm.restore(template, newIncarnationId());
      try {
        const agent = await AgentClient.open(await vm.connect('control'), ATTACH_MS);
        await personalize(agent, hostname);
        return await body(agent, vm);
      } finally {
        await vm.kill();
      }
    };

    it('finds a finished template again under its key, and none under another', async () => {
      expect((await under.vmm.findTemplate(template.key))?.directory).toBe(template.directory);
      const other = under.vmm.templateKey({ ...under.images, digest: 'other' }, under.size);
      expect(other).not.toBe(template.key);
      expect(await under.vmm.findTemplate(other)).toBeUndefined();
    });

    it('restores a clone whose guest answers, runs a command and tells its exit code', async () => {
      await withClone('one', async (agent) => {
        expect(await run(agent, 'echo hello')).toEqual({ stdout: 'hello\n', code: 0 });
        expect((await run(agent, 'exit 7')).code).toBe(7);
      });
    });

    it('keeps clones apart: names, files and random numbers of one are not in the other', async () => {
      const draw = 'head -c 32 /dev/urandom | base64';
      await withClone('left', (left) =>
        withClone('right', async (right) => {
          expect((await run(left, draw)).stdout).not.toBe((await run(right, draw)).stdout);
          expect((await run(left, WHO)).stdout).toBe('left\n');
          expect((await run(right, WHO)).stdout).toBe('right\n');
          await write(left, '/root/secret', 'left');
          await expect(right.files.stat({ target: { path: '/root/secret' } })).rejects.toMatchObject({
            reason: 'not_found',
          });
        }),
      );
    });

    it('restores several clones at once', async () => {
      const names = ['a', 'b', 'c', 'd'];
      const answers = await Promise.all(names.map((name) => withClone(name, (agent) => run(agent, WHO))));
      expect(answers.map(({ stdout }) => stdout)).toEqual(names.map((name) => `${name}\n`));
    });

    it('attaches again after the control stream was dropped', async () => {
      await withClone('again', async (agent, vm) => {
        agent.close();
        await agent.closed;
        const second = await attachAgain(vm);
        expect((await run(second, WHO)).stdout).toBe('again\n');
      });
    });

    it('carries files in both directions unchanged', async () => {
      await withClone('files', async (agent) => {
        const text = randomBytes(300_000).toString('base64');
        await write(agent, '/root/big', text);
        let back = '';
        for await (const { data } of agent.files.read({ target: { path: '/root/big' } }))
          back += Buffer.from(data).toString('latin1');
        expect(back).toBe(text);
      });
    });

    describeTunnels(withClone);

    it('takes a snapshot while the guest goes on, and restores it as often as one likes', async () => {
      const directory = join(under.scratch, 'continued');
      await withClone('source', async (agent, vm) => {
        await write(agent, '/root/before', 'kept');
        await agent.lifecycle.sync({});
        const snapshot = await vm.snapshot(directory, 'continue');
        const rests = { templateKey: template.key, templateBuildId: template.buildId };
        expect(snapshot).toMatchObject({ directory, ...rests, size: template.size });
        expect(await under.vmm.findSnapshot(directory)).toMatchObject(rests);
        const after = await stillAttached(agent, vm);
        await write(after, '/root/after', 'not in it');
        expect((await run(after, 'cat before', '/root')).stdout).toBe('kept');
      });
      const found = await under.vmm.findSnapshot(directory);
      expect(found).toBeDefined();
      const seen = async (name: string): Promise<string[]> => {
        const vm = await under.vmm.restore(found as VmSnapshot, newIncarnationId());
        try {
          const agent = await AgentClient.open(await vm.connect('control'), ATTACH_MS);
          await personalize(agent, name);
          await write(agent, `/root/${name}`, name);
          return (await run(agent, `ls; ${WHO}`, '/root')).stdout.trim().split('\n');
        } finally {
          await vm.kill();
        }
      };
      expect(await Promise.all(['one', 'two'].map(seen))).toEqual([
        ['before', 'one', 'one'],
        ['before', 'two', 'two'],
      ]);
    });

    it('keeps a microVM in a snapshot and ends it, and a snapshot of what was restored from one is whole', async () => {
      let from: Template | VmSnapshot = template;
      for (const round of [1, 2, 3]) {
        const directory = join(under.scratch, `round-${round}`);
        const vm: MicroVm = await under.vmm.restore(from, newIncarnationId());
        try {
          const agent = await AgentClient.open(await vm.connect('control'), ATTACH_MS);
          await personalize(agent, `round-${round}`);
          await write(agent, `/root/file-${round}`, String(round));
          await agent.lifecycle.sync({});
          from = await vm.snapshot(directory, 'end');
          expect((await vm.exited).requested).toBe(true);
        } finally {
          await vm.kill();
        }
      }
      const vm = await under.vmm.restore(from, newIncarnationId());
      try {
        const agent = await AgentClient.open(await vm.connect('control'), ATTACH_MS);
        await personalize(agent, 'last');
        expect((await run(agent, 'cat file-1 file-2 file-3', '/root')).stdout).toBe('123');
      } finally {
        await vm.kill();
      }
    });

    it('accepts no snapshot that is not whole, and removes what an interrupted one left', async () => {
      expect(await under.vmm.findSnapshot(join(under.scratch, 'nowhere'))).toBeUndefined();
      await mkdir(join(under.scratch, '.partial-x', 'disk'), { recursive: true });
      expect(await under.vmm.removePartialSnapshots(under.scratch)).toBe(1);
      expect(await under.vmm.removePartialSnapshots(under.scratch)).toBe(0);
    });

    /** One that was made over the template, as far as its manifest goes. */
    const described = (): VmSnapshot => {
      const { directory, size, accelerator, backend, key: templateKey, buildId: templateBuildId } = template;
      return { directory, size, accelerator, backend, templateKey, templateBuildId, storedBytes: 1 };
    };

    it('refuses a snapshot that was made over another building of its template, or does not say over which', async () => {
      for (const [templateBuildId, why] of [
        ['another', 'was made over another building of its template'],
        [undefined, 'does not say over which building of its template'],
      ] as const)
        await expect(under.vmm.restore({ ...described(), templateBuildId }, newIncarnationId())).rejects.toMatchObject({
          code: 'snapshot_incompatible',
          message: expect.stringContaining(why),
        });
    });

    it('refuses a snapshot of another backend', async () => {
      const snapshot: VmSnapshot = { ...described(), backend: 'another' };
      await expect(under.vmm.restore(snapshot, newIncarnationId())).rejects.toMatchObject({
        code: 'snapshot_incompatible',
      });
    });

    it('tells of an end that was asked for, and ends only once', async () => {
      const vm = await under.vmm.restore(template, newIncarnationId());
      await Promise.all([vm.kill(), vm.kill()]);
      expect((await vm.exited).requested).toBe(true);
      await vm.kill();
    });

    it('tells of a guest that ended by itself, and loses its channel', async () => {
      const vm = await under.vmm.restore(template, newIncarnationId());
      try {
        const agent = await AgentClient.open(await vm.connect('control'), ATTACH_MS);
        await agent.lifecycle.powerOff({ graceMs: 0 }).catch(() => {});
        expect((await vm.exited).requested).toBe(false);
        await agent.closed;
      } finally {
        await vm.kill();
      }
    });

    it('refuses a template of another backend', async () => {
      const foreign = { ...template, backend: 'another' };
      await expect(under.vmm.restore(foreign, newIncarnationId())).rejects.toMatchObject({ code: 'boot_failed' });
    });

    it('finds nothing to reap when everything was ended', async () => {
      expect(await under.vmm.reapLeftovers()).toBe(0);
    });
  });
}

async function personalize(agent: AgentClient, hostname: string): Promise<void> {
  await agent.lifecycle.personalize({
    unixTimeNs: BigInt(Date.now()) * 1_000_000n,
    entropy: randomBytes(64),
    hostname,
    env: { CLONE_NAME: hostname },
    machineId: randomBytes(16).toString('hex'),
  });
}

/** A snapshot ends the streams on some backends; then they are told so. */
async function stillAttached(agent: AgentClient, vm: MicroVm): Promise<AgentClient> {
  return agent.lifecycle.ping({}, { timeoutMs: ATTACH_MS }).then(
    () => agent,
    () => agent.closed.then(() => attachAgain(vm)),
  );
}

/** A guest that has not seen the hang-up yet answers the next attempt (spec/agent.proto). */
async function attachAgain(vm: MicroVm): Promise<AgentClient> {
  for (let attempt = 1; ; attempt++) {
    let agent: AgentClient | undefined;
    try {
      agent = await AgentClient.open(await vm.connect('control'), 3_000);
      // Readiness is an answer, never a connection.
      await agent.lifecycle.ping({}, { timeoutMs: 3_000 });
      return agent;
    } catch (error) {
      agent?.close();
      if (attempt === 20) throw error;
    }
  }
}

async function run(
  agent: AgentClient,
  script: string,
  cwd = '',
): Promise<{ stdout: string; code: number | undefined }> {
  async function* messages() {
    yield { message: { case: 'start', value: { command: { case: 'script', value: script }, cwd } } } as const;
  }
  let stdout = '';
  let code: number | undefined;
  for await (const { event } of agent.exec.run(messages())) {
    if (event.case === 'stdout') stdout += Buffer.from(event.value).toString();
    if (event.case === 'exit') code = event.value.code;
  }
  return { stdout, code };
}

async function write(agent: AgentClient, path: string, text: string): Promise<void> {
  async function* messages() {
    yield { message: { case: 'open', value: { target: { path } } } } as const;
    yield { message: { case: 'data', value: new TextEncoder().encode(text) } } as const;
  }
  await agent.files.write(messages());
}
