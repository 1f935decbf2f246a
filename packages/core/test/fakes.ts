/** Ports of the lifecycle made by hand: a VMM whose microVMs are objects, records in a map, a clock that tests move. */
import { PassThrough } from 'node:stream';
import type {
  AccountId,
  Clock,
  GuestConnector,
  GuestIdentity,
  GuestLink,
  MicroVm,
  NewSandbox,
  SandboxId,
  SandboxRecord,
  SandboxRecords,
  SnapshotId,
  SnapshotRecord,
  Template,
  TemplateKey,
  Vmm,
  VmmExit,
  VmSnapshot,
} from '../src/index.ts';
import { SandboxService, Snapshots, Templates } from '../src/index.ts';

export const ACCOUNT = 'acct_test' as AccountId;

export class ManualClock implements Clock {
  #now = new Date('2026-01-01T00:00:00Z').getTime();
  readonly #tasks = new Set<{ at: number; task: () => void }>();

  now(): Date {
    return new Date(this.#now);
  }

  schedule(at: Date, task: () => void): () => void {
    const entry = { at: at.getTime(), task };
    this.#tasks.add(entry);
    return () => this.#tasks.delete(entry);
  }

  /** Moves time and runs what is due, in order. */
  advance(ms: number): void {
    this.#now += ms;
    const due = [...this.#tasks].filter(({ at }) => at <= this.#now).sort((a, b) => a.at - b.at);
    for (const entry of due) {
      this.#tasks.delete(entry);
      entry.task();
    }
  }

  get scheduled(): number {
    return this.#tasks.size;
  }
}

export class HandGuest implements GuestLink {
  readonly closed: Promise<void>;
  identity: GuestIdentity | undefined;
  #settle: () => void = () => {};

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  async personalize(identity: GuestIdentity): Promise<void> {
    this.identity = identity;
  }

  async sync(): Promise<void> {}

  close(): void {
    this.#settle();
  }
}

export class HandVm implements MicroVm {
  readonly accelerator = 'none';
  readonly pid = undefined;
  readonly incarnationId: MicroVm['incarnationId'];
  readonly exited: Promise<VmmExit>;
  killed = false;
  killFails = false;
  /** What it began in: a directory of a snapshot, or the template's. */
  readonly from: string;
  readonly #world: World;
  #settle: (exit: VmmExit) => void = () => {};

  constructor(incarnationId: MicroVm['incarnationId'], from: string, world: World) {
    this.incarnationId = incarnationId;
    this.from = from;
    this.#world = world;
    this.exited = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  async connect(): Promise<PassThrough> {
    return new PassThrough();
  }

  async kill(): Promise<void> {
    if (this.killFails) throw new Error('it does not die');
    this.killed = true;
    this.#settle({ code: 0, signal: null, requested: true, diagnostics: '' });
  }

  async snapshot(directory: string, then: 'continue' | 'end'): Promise<VmSnapshot> {
    if (this.#world.fail.snapshot !== undefined) throw this.#world.fail.snapshot;
    if (this.killed) throw new Error('it is dead');
    this.#world.files.add(directory);
    if (then === 'end') await this.kill();
    return snapshotIn(directory);
  }

  die(): void {
    this.killed = true;
    this.#settle({ code: null, signal: 'SIGKILL', requested: false, diagnostics: '' });
  }
}

type World = { readonly files: Set<string>; readonly fail: { snapshot?: Error } };

const TEMPLATE_KEY = 'k' as TemplateKey;
const SIZE = { memoryMib: 512, vcpus: 2 };

const snapshotIn = (directory: string): VmSnapshot => ({
  directory,
  templateKey: TEMPLATE_KEY,
  size: SIZE,
  backend: 'hand',
  accelerator: 'none',
  storedBytes: 7,
});

export function ladder(options: { maxAlivePerAccount?: number } = {}) {
  const clock = new ManualClock();
  const vms: HandVm[] = [];
  const guests: HandGuest[] = [];
  const stored = new Map<SandboxId, SandboxRecord>();
  const fail: { restore?: Error; attach?: Error; update?: Error; snapshot?: Error } = {};
  const files = new Set<string>();
  const template: Template = {
    key: TEMPLATE_KEY,
    directory: '/nowhere',
    size: SIZE,
    backend: 'hand',
    accelerator: 'none',
  };
  const vmm: Vmm = {
    backend: 'hand',
    accelerator: 'none',
    templateKey: () => template.key,
    findTemplate: async () => template,
    buildTemplate: async () => template,
    restore: async (source, incarnationId) => {
      if (fail.restore !== undefined) throw fail.restore;
      const vm = new HandVm(incarnationId, source.directory, { files, fail });
      vms.push(vm);
      return vm;
    },
    findSnapshot: async (directory) => (files.has(directory) ? snapshotIn(directory) : undefined),
    removePartialSnapshots: async () => 0,
    adoptSurvivors: async () => [],
    reapLeftovers: async () => 0,
  };
  const connector: GuestConnector<HandGuest> = {
    attach: async () => {
      if (fail.attach !== undefined) throw fail.attach;
      const guest = new HandGuest();
      guests.push(guest);
      return guest;
    },
  };
  const records: SandboxRecords = {
    insert: async (record) => {
      if (fail.update !== undefined) throw fail.update;
      stored.set(record.id, record);
    },
    update: async (id, epoch, change) => {
      if (fail.update !== undefined) throw fail.update;
      const record = stored.get(id);
      if (record?.epoch !== epoch) return false;
      stored.set(id, { ...record, ...change });
      return true;
    },
    find: async (id) => stored.get(id),
    findByIncarnation: async (id) => [...stored.values()].find(({ incarnationId }) => incarnationId === id),
    list: async () => [...stored.values()],
    prune: async () => 0,
    listUnsettled: async () => [...stored.values()].filter(({ state }) => !['stopped', 'failed'].includes(state)),
  };
  const images = { kernelPath: '', initramfsPath: '', basePath: '', blankOverlayPath: '', digest: '' };
  const log = { info: () => {}, warn: () => {} };
  const kept = new Map<SnapshotId, SnapshotRecord>();
  const snapshots = new Snapshots({
    vmm,
    clock,
    log,
    directories: {
      path: (id) => `/snapshots/${id}`,
      list: async () => [...files].map((path) => path.split('/').at(-1) as SnapshotId),
      remove: async (id) => void files.delete(`/snapshots/${id}`),
    },
    records: {
      insert: async (record) => void kept.set(record.id, record),
      update: async (id, change) => void kept.set(id, { ...(kept.get(id) as SnapshotRecord), ...change }),
      find: async (id) => kept.get(id),
      list: async () => [...kept.values()],
      listAll: async () => [...kept.values()],
      delete: async (id) => void kept.delete(id),
    },
  });
  const service = new SandboxService<HandGuest>({
    vmm,
    snapshots,
    templates: new Templates(vmm, images, () => {}),
    connector,
    records,
    clock,
    log,
    maxAlivePerAccount: options.maxAlivePerAccount ?? 100,
  });
  const create = (ttlSeconds = 60, settings: Partial<NewSandbox> = {}) =>
    service.create({
      accountId: ACCOUNT,
      size: template.size,
      ttlSeconds,
      metadata: {},
      env: { A: 'b' },
      egress: null,
      snapshotId: null,
      autoSuspend: false,
      autoResume: true,
      snapshotOnExpiry: null,
      ...settings,
    });
  return { clock, vms, guests, stored, fail, files, kept, snapshots, service, create };
}
