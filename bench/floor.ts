/**
 * The floor: the same QEMU restore and the same guest agent, asked directly. No daemon, no database, no HTTP, no SDK, no identity; the
 * raw channel is the second virtio-serial port, which carries bytes without any protocol.
 */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentClient } from '@instavm/agent-client';
import { type Accelerator, DEFAULT_SIZE, type MicroVm, newIncarnationId, type Template, type Vmm } from '@instavm/core';
import { defaultCacheDirectory, GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';
import { createQemuVmm, probeKvm, qemuVersion } from '@instavm/vmm/qemu';

const ATTACH_MS = 30_000;
/** The device of the port named `egress`, whatever its number. */
const EGRESS_DEVICE = '/dev/$(basename $(dirname $(grep -lx egress /sys/class/virtio-ports/*/name)))';

/** Reads byte by byte from descriptor 3, until a "q". */
const ECHO_PROGRAM = 'import os\nwhile (b := os.read(3, 1)) != b"q": os.write(3, b)';

export class Floor {
  readonly #vmm: Vmm;
  readonly #template: Template;
  readonly #runDirectory: string;

  private constructor(vmm: Vmm, template: Template, runDirectory: string) {
    this.#vmm = vmm;
    this.#template = template;
    this.#runDirectory = runDirectory;
  }

  static async open(): Promise<Floor> {
    const cacheDirectory = defaultCacheDirectory(process.env);
    const images = await locateGuestImages({ cacheDirectory, agentPath: GUEST_AGENT_PATH });
    const accelerator = (await probeKvm(images, cacheDirectory, () => {})).usable ? 'kvm' : 'tcg';
    const runDirectory = await mkdtemp(join(tmpdir(), 'instavm-bench-'));
    const templatesDirectory = join(cacheDirectory, 'templates');
    const vmm = createQemuVmm({ templatesDirectory, runDirectory, accelerator, version: await qemuVersion() });
    const key = vmm.templateKey(images, DEFAULT_SIZE);
    const template = (await vmm.findTemplate(key)) ?? (await vmm.buildTemplate(images, DEFAULT_SIZE, () => {}));
    return new Floor(vmm, template, runDirectory);
  }

  get accelerator(): Accelerator {
    return this.#vmm.accelerator;
  }

  /** @returns ms from the start of the restore to the answer of one command */
  async restoreToFirstExec(): Promise<number> {
    const started = performance.now();
    const clone = await this.clone();
    await clone.run('true');
    const ms = performance.now() - started;
    await clone.end();
    return ms;
  }

  async clone(): Promise<Clone> {
    const vm = await this.#vmm.restore(this.#template, newIncarnationId());
    return new Clone(vm, await AgentClient.open(await vm.connect('control'), ATTACH_MS));
  }

  close(): Promise<void> {
    return rm(this.#runDirectory, { recursive: true, force: true });
  }
}

export class Clone {
  readonly #vm: MicroVm;
  readonly agent: AgentClient;

  constructor(vm: MicroVm, agent: AgentClient) {
    this.#vm = vm;
    this.agent = agent;
  }

  async run(script: string): Promise<void> {
    async function* messages() {
      yield { message: { case: 'start', value: { command: { case: 'script', value: script } } } } as const;
    }
    for await (const { event } of this.agent.exec.run(messages())) {
      if (event.case === 'exit' && event.value.code !== 0) throw new Error(`${script}: exit code ${event.value.code}`);
    }
  }

  /** Guest to host over the bare port. @returns ms */
  async rawDownload(bytes: number): Promise<number> {
    const socket = (await this.#vm.connect('egress')) as Socket;
    const started = performance.now();
    let received = 0;
    const all = new Promise<number>((resolve) => {
      socket.on('data', (chunk) => {
        received += chunk.length;
        if (received >= bytes) resolve(performance.now() - started);
      });
    });
    await this.run(`head -c ${bytes} /dev/zero > ${EGRESS_DEVICE}`);
    const ms = await all;
    socket.destroy();
    return ms;
  }

  /** Host to guest over the bare port. @returns ms */
  async rawUpload(bytes: number): Promise<number> {
    const socket = (await this.#vm.connect('egress')) as Socket;
    const started = performance.now();
    const reading = this.run(`head -c ${bytes} ${EGRESS_DEVICE} > /dev/null`);
    const chunk = Buffer.alloc(256 * 1024);
    for (let sent = 0; sent < bytes; sent += chunk.length) {
      if (!socket.write(chunk)) await new Promise((drained) => socket.once('drain', drained));
    }
    await reading;
    const ms = performance.now() - started;
    socket.destroy();
    return ms;
  }

  /** A program in the guest that gives every byte of the bare port back at once. */
  async rawEcho(): Promise<{ socket: Socket; end(): Promise<void> }> {
    const socket = (await this.#vm.connect('egress')) as Socket;
    const echoing = this.run(`exec 3<>${EGRESS_DEVICE}; python3 -c '${ECHO_PROGRAM}'`);
    socket.write('x');
    await once(socket, 'data');
    const end = async (): Promise<void> => {
      socket.write('q');
      await echoing;
      socket.destroy();
    };
    return { socket, end };
  }

  async end(): Promise<void> {
    this.agent.close();
    await this.#vm.kill();
  }
}
