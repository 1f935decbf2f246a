/** Ports of the lifecycle made by hand: a VMM whose microVMs are objects, records in maps, a clock that tests move. */
import { PassThrough } from 'node:stream';
import { InstaVMError } from '@instavm/wire';
import type {
  AccountId,
  Clock,
  EgressGateway,
  EgressLink,
  EgressPolicy,
  FilesId,
  GuestConnector,
  GuestIdentity,
  GuestLink,
  HostResources,
  LifecyclePolicy,
  MicroVm,
  Quotas,
  SandboxId,
  SandboxRecord,
  SandboxRecords,
  SnapshotFiles,
  SnapshotId,
  SnapshotRecord,
  SnapshotRecords,
  SpendingGate,
  Step,
  Template,
  TemplateKey,
  UsageObserver,
  Vmm,
  VmmExit,
  VmSnapshot,
} from '../src/index.ts';
import { DEFAULT_LIFECYCLE, HOLDING_STATES, SandboxService, SYSTEM, Templates } from '../src/index.ts';

export const ACCOUNT = 'acct_test' as AccountId;
export const SIZE = { memoryMib: 512, vcpus: 2 };

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

  /** As by an administrator, or a time server: timers that run count on. */
  setBack(ms: number): void {
    this.#now -= ms;
    for (const entry of this.#tasks) entry.at -= ms;
  }

  get scheduled(): number {
    return this.#tasks.size;
  }
}

export class HandGuest implements GuestLink {
  readonly closed: Promise<void>;
  identity: GuestIdentity | undefined;
  hasSynced = false;
  /** Neither answers nor hangs up. */
  isMute = false;
  #settle: () => void = () => {};

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  async personalize(identity: GuestIdentity): Promise<void> {
    await this.ping();
    this.identity = identity;
  }

  async ping(): Promise<void> {
    if (this.isMute) throw new InstaVMError('guest_unresponsive', 'no answer');
  }

  async rehearse(): Promise<void> {
    await this.ping();
  }

  async sync(): Promise<void> {
    await this.ping();
    this.hasSynced = true;
  }

  close(): void {
    this.#settle();
  }
}

/** The network of one incarnation, and every policy that it has had, the latest last. */
export class HandNetwork implements EgressLink {
  readonly sandboxId: SandboxId;
  readonly policies: (EgressPolicy | null)[];
  isClosed = false;
  forgiven = 0;

  constructor(sandboxId: SandboxId, policy: EgressPolicy | null) {
    this.sandboxId = sandboxId;
    this.policies = [policy];
  }

  async ready(): Promise<void> {}

  setPolicy(policy: EgressPolicy | null): void {
    this.policies.push(policy);
  }

  forgive(): void {
    this.forgiven++;
  }

  close(): void {
    this.isClosed = true;
  }
}

export const CLOSED_NETWORK: EgressPolicy = {
  allowHttp: false,
  allowHttps: false,
  allowPublicRepos: false,
  allowedDomains: [],
  allowedCidrs: [],
};

/** What a saved state holds here: the memory of its guest, one number. */
type SavedMemory = { readonly memory: number; readonly snapshot: VmSnapshot };

export class HandVm implements MicroVm {
  readonly accelerator = 'none';
  readonly pid = undefined;
  readonly incarnationId: MicroVm['incarnationId'];
  readonly exited: Promise<VmmExit>;
  memory: number;
  killed = false;
  killFails = false;
  snapshotFails = false;
  /** Its VMM ends over a snapshot, and thinks that this was asked for. */
  snapshotKills = false;
  /** What else a snapshot does to it. */
  duringSnapshot: () => void = () => {};
  /** Its memory is on its way to the disk. */
  whileStored: () => Promise<void> = async () => {};
  readonly #disk: Map<string, SavedMemory>;
  #settle: (exit: VmmExit) => void = () => {};

  constructor(incarnationId: MicroVm['incarnationId'], disk: Map<string, SavedMemory>, memory: number) {
    this.incarnationId = incarnationId;
    this.#disk = disk;
    this.memory = memory;
    this.exited = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  async connect(): Promise<PassThrough> {
    if (this.killed) throw new Error('it has ended');
    return new PassThrough();
  }

  async snapshot(directory: string, then: 'continue' | 'end'): Promise<VmSnapshot> {
    await Promise.resolve();
    this.duringSnapshot();
    if (this.snapshotKills) await this.kill();
    if (this.killed || this.snapshotFails) throw new InstaVMError('snapshot_failed', 'it cannot be saved');
    await this.whileStored();
    const made = { size: SIZE, backend: 'hand', accelerator: 'none', storedBytes: 7 } as const;
    const snapshot = { directory, templateKey: 'k' as TemplateKey, templateBuildId: 'b', ...made };
    this.#disk.set(directory, { memory: this.memory, snapshot });
    if (then === 'end') await this.kill();
    return snapshot;
  }

  async kill(): Promise<void> {
    if (this.killFails) throw new Error('it does not die');
    this.killed = true;
    this.#settle({ code: 0, signal: null, requested: true, diagnostics: '' });
  }

  die(): void {
    this.killed = true;
    this.#settle({ code: null, signal: 'SIGKILL', requested: false, diagnostics: '' });
  }
}

/** A daemon that dies: from then on nothing that it asks of the world happens or is answered. */
export class Life {
  isOver = false;

  /** Every call of an object, until the end. */
  of<T extends object>(port: T): T {
    return new Proxy(port, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => (this.isOver ? new Promise(() => {}) : Reflect.apply(value, target, args));
      },
    });
  }
}

const PLENTY: Quotas = { sandboxes: 100, vcpus: 1e6, memoryMib: 1e6, snapshots: 1e6, storedMib: 1e6 };

export type LadderOptions = {
  readonly quotas?: Partial<Quotas>;
  readonly warm?: number;
  readonly reached?: (step: Step) => void;
  readonly life?: Life;
  readonly usage?: UsageObserver;
  readonly spending?: SpendingGate;
};

/** Everything that survives a daemon: what a next one starts from. */
export class World {
  readonly clock = new ManualClock();
  readonly vms: HandVm[] = [];
  readonly guests: HandGuest[] = [];
  readonly networks: HandNetwork[] = [];
  readonly stored = new Map<SandboxId, SandboxRecord>();
  readonly snapshots = new Map<SnapshotId, SnapshotRecord>();
  readonly disk = new Map<string, SavedMemory>();
  readonly host = { availableMemoryMib: 20_000, freeDiskMib: 100_000 };
  readonly fail: { restore?: Error; attach?: Error; update?: Error } = {};
  templateKey = 'k' as TemplateKey;
  beforeRestore: () => Promise<unknown> = async () => {};

  get alive(): HandVm[] {
    return this.vms.filter(({ killed }) => !killed);
  }
}

export function ladder(options: LadderOptions = {}, world = new World()) {
  const { clock, vms, guests, stored, fail, disk } = world;
  const { life = new Life() } = options;
  const templateOf = (key: TemplateKey): Template => ({
    key,
    buildId: 'b',
    directory: '/nowhere',
    size: SIZE,
    backend: 'hand',
    accelerator: 'none',
  });
  const vmm: Vmm = {
    backend: 'hand',
    accelerator: 'none',
    templateKey: () => world.templateKey,
    findTemplate: async (key) => templateOf(key),
    buildTemplate: async () => templateOf(world.templateKey),
    restore: async (source, incarnationId) => {
      if (fail.restore !== undefined) throw fail.restore;
      await world.beforeRestore();
      const memory = 'templateKey' in source ? disk.get(source.directory)?.memory : 0;
      if (memory === undefined) throw new InstaVMError('boot_failed', 'there is nothing to restore');
      const vm = new HandVm(incarnationId, disk, memory);
      vms.push(vm);
      return life.of(vm);
    },
    findSnapshot: async (directory) => disk.get(directory)?.snapshot,
    removePartialSnapshots: async () => 0,
    adoptSurvivors: async () => world.alive.map((vm) => life.of(vm)),
    reapLeftovers: async () => 0,
  };
  const connector: GuestConnector<HandGuest> = {
    attach: async () => {
      if (fail.attach !== undefined) throw fail.attach;
      const guest = new HandGuest();
      guests.push(guest);
      return life.of(guest);
    },
  };
  const egress: EgressGateway = {
    defaultPolicy: CLOSED_NETWORK,
    serve: (sandboxId, policy) => {
      const network = new HandNetwork(sandboxId, policy);
      world.networks.push(network);
      return network;
    },
  };
  const files: SnapshotFiles = {
    directoryOf: (id) => `/snapshots/${id}`,
    remove: async (id) => void disk.delete(`/snapshots/${id}`),
    removeAllBut: async (kept) => {
      const doomed = [...disk.keys()].filter((path) => !kept.has(path.replace('/snapshots/', '') as FilesId));
      for (const path of doomed) disk.delete(path);
      return doomed.length;
    },
  };
  const host: HostResources = {
    availableMemoryMib: () => world.host.availableMemoryMib,
    freeDiskMib: () => world.host.freeDiskMib,
  };
  const service = new SandboxService<HandGuest>({
    vmm: life.of(vmm),
    templates: new Templates(vmm, images, () => {}),
    connector,
    egress,
    records: life.of(sandboxRecordsOf(world)),
    snapshots: life.of(snapshotRecordsOf(world)),
    files: life.of(files),
    host,
    limits: { memoryReserveMib: 512, diskReserveMib: 1024 },
    quotas: { of: async () => ({ ...PLENTY, ...options.quotas }) },
    restoredAtOnce: 4,
    warmPool: { size: SIZE, depth: options.warm ?? 0 },
    clock,
    log: { info: () => {}, warn: () => {} },
    actor: () => SYSTEM,
    usage: options.usage ?? { began: () => {}, ended: () => {} },
    spending: options.spending ?? { check: async () => {} },
    ...(options.reached !== undefined && { reached: options.reached }),
  });
  const create = (ttlSeconds = 60, lifecycle: Partial<LifecyclePolicy> = {}) =>
    service.create({
      accountId: ACCOUNT,
      size: SIZE,
      ttlSeconds,
      metadata: { team: 'a' },
      env: { A: 'b' },
      egress: null,
      lifecycle: { ...DEFAULT_LIFECYCLE, ...lifecycle },
    });
  return { world, clock, vms, guests, stored, fail, service, create };
}

const images = { kernelPath: '', kernelElfPath: '', initramfsPath: '', basePath: '', blankOverlayPath: '', digest: '' };

function sandboxRecordsOf({ stored, fail }: World): SandboxRecords {
  const ofIncarnation = new Map<string, SandboxId>();
  const remember = ({ id, incarnationId }: SandboxRecord): void => {
    if (incarnationId !== null) ofIncarnation.set(incarnationId, id);
  };
  for (const record of stored.values()) remember(record);
  return {
    insert: async (record) => {
      if (fail.update !== undefined) throw fail.update;
      stored.set(record.id, record);
      remember(record);
    },
    update: async (id, epoch, change) => {
      if (fail.update !== undefined) throw fail.update;
      const record = stored.get(id);
      if (record?.epoch !== epoch) return false;
      stored.set(id, { ...record, ...change });
      remember({ ...record, ...change });
      return true;
    },
    find: async (id) => stored.get(id),
    findByIncarnation: async (id) => stored.get(ofIncarnation.get(id) as SandboxId),
    list: async () => [...stored.values()],
    prune: async () => 0,
    listUnsettled: async () => [...stored.values()].filter(({ state }) => HOLDING_STATES.includes(state)),
  };
}

function snapshotRecordsOf({ snapshots, stored, fail }: World): SnapshotRecords {
  const all = (): SnapshotRecord[] => [...snapshots.values()];
  const referred = (): Set<FilesId> => {
    const ofSandboxes = [...stored.values()].flatMap(({ savedIn }) => savedIn ?? []);
    const ofSnapshots = all().flatMap(({ status, filesId }) => (status === 'failed' ? [] : [filesId]));
    return new Set([...ofSandboxes, ...ofSnapshots]);
  };
  return {
    insert: async (record) => {
      if (fail.update !== undefined) throw fail.update;
      snapshots.set(record.id, record);
    },
    update: async (id, change) => {
      const record = snapshots.get(id);
      if (record !== undefined) snapshots.set(id, { ...record, ...change });
    },
    find: async (id) => snapshots.get(id),
    list: async () => all().filter(({ isTransient }) => !isTransient),
    delete: async (id) => snapshots.delete(id),
    listUnsettled: async () => all().filter(({ status, isTransient }) => status === 'building' || isTransient),
    listUnused: async (prefix, before) =>
      all().filter(({ name, usedAt }) => name?.startsWith(prefix) && usedAt < before),
    keptBy: async (accountId) => {
      const own = all().filter((each) => each.accountId === accountId && each.status !== 'failed' && !each.isTransient);
      const storedBytes = own.reduce((sum, { sizeBytes }) => sum + (sizeBytes ?? 0), 0);
      return { snapshots: own.length, storedBytes };
    },
    refersTo: async (id) => referred().has(id),
    listFiles: async () => referred(),
  };
}
