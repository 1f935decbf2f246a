/**
 * The floor: the same QEMU restore and the same guest agent, asked directly. No daemon, no database, no HTTP, no SDK, no identity; the
 * raw channel is a third virtio-serial port, plugged into the running clone, which carries bytes without any protocol.
 */
import { once } from 'node:events';
import { chmod, mkdtemp, rm, stat } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { AgentClient } from '@instavm/agent-client';
import { type Accelerator, DEFAULT_SIZE, type MicroVm, newIncarnationId, type Template, type Vmm } from '@instavm/core';
import { defaultCacheDirectory, GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';
import { createQemuVmm, probeConfinement, probeKvm, qemuVersion, UNLIMITED } from '@instavm/vmm/qemu';

/** Beside the default range of a daemon. */
const UIDS = { first: 1_900_020_000, count: 100 };
const ATTACH_MS = 30_000;
const RAW = 'raw';
/** The device of the raw port, whatever its number. */
const RAW_DEVICE = `/dev/$(basename $(dirname $(grep -lx ${RAW} /sys/class/virtio-ports/*/name)))`;

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
    const usesKvm = accelerator === 'kvm';
    const confinement = await probeConfinement({ uids: UIDS, parentCgroup: 'instavm-bench', usesKvm });
    const version = await qemuVersion();
    const vmm = createQemuVmm({ templatesDirectory, runDirectory, accelerator, version, confinement, disk: UNLIMITED });
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
    const agent = await AgentClient.open(await vm.connect('control'), ATTACH_MS);
    return new Clone(vm, agent, join(this.#runDirectory, vm.incarnationId));
  }

  close(): Promise<void> {
    return rm(this.#runDirectory, { recursive: true, force: true });
  }
}

export class Clone {
  readonly #vm: MicroVm;
  readonly agent: AgentClient;
  /** QEMU's, with its sockets. */
  readonly #directory: string;
  #rawPort: Promise<void> | undefined;

  constructor(vm: MicroVm, agent: AgentClient, directory: string) {
    this.#vm = vm;
    this.agent = agent;
    this.#directory = directory;
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
    const socket = await this.#connectRaw();
    const started = performance.now();
    let received = 0;
    const all = new Promise<number>((resolve) => {
      socket.on('data', (chunk) => {
        received += chunk.length;
        if (received >= bytes) resolve(performance.now() - started);
      });
    });
    await this.run(`head -c ${bytes} /dev/zero > ${RAW_DEVICE}`);
    const ms = await all;
    socket.destroy();
    return ms;
  }

  /** Host to guest over the bare port. @returns ms */
  async rawUpload(bytes: number): Promise<number> {
    const socket = await this.#connectRaw();
    const started = performance.now();
    const reading = this.run(`head -c ${bytes} ${RAW_DEVICE} > /dev/null`);
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
    const socket = await this.#connectRaw();
    const echoing = this.run(`exec 3<>${RAW_DEVICE}; python3 -c '${ECHO_PROGRAM}'`);
    socket.write('x');
    await once(socket, 'data');
    const end = async (): Promise<void> => {
      socket.write('q');
      await echoing;
      socket.destroy();
    };
    return { socket, end };
  }

  async #connectRaw(): Promise<Socket> {
    this.#rawPort ??= this.#plugRawPort();
    await this.#rawPort;
    const socket = connect(join(this.#directory, `${RAW}.sock`));
    await once(socket, 'connect');
    return socket;
  }

  async #plugRawPort(): Promise<void> {
    const addr = { type: 'unix', data: { path: `${RAW}.sock` } };
    const backend = { type: 'socket', data: { addr, server: true, wait: false } };
    const device = { driver: 'virtserialport', chardev: RAW, name: RAW, id: RAW };
    // Locked since its guest runs: QEMU makes no socket in it any more.
    const { mode } = await stat(this.#directory);
    await chmod(this.#directory, 0o1770);
    await qmp(join(this.#directory, 'qmp.sock'), [
      { execute: 'qmp_capabilities' },
      { execute: 'chardev-add', arguments: { id: RAW, backend } },
      { execute: 'device_add', arguments: device },
    ]);
    await chmod(this.#directory, mode & 0o7777);
    await this.run(`until [ -c ${RAW_DEVICE} ]; do sleep 0.01; done 2>/dev/null`);
  }

  async end(): Promise<void> {
    this.agent.close();
    await this.#vm.kill();
  }
}

/** Runs QMP commands, each after the answer to the one before. */
async function qmp(path: string, commands: readonly object[]): Promise<void> {
  const socket = connect(path);
  try {
    const pending = [...commands];
    for await (const line of createInterface({ input: socket })) {
      const message = JSON.parse(line) as Record<string, unknown>;
      if ('error' in message) throw new Error(`QMP: ${line}`);
      if (!('QMP' in message || 'return' in message)) continue;
      const next = pending.shift();
      if (next === undefined) return;
      socket.write(JSON.stringify(next));
    }
  } finally {
    socket.destroy();
  }
}
