/** Ports of the lifecycle made by hand: a VMM whose microVMs are objects, records in a map, a clock that tests move. */
import { PassThrough } from 'node:stream';
import type {
  AccountId,
  Clock,
  GuestConnector,
  GuestIdentity,
  GuestLink,
  MicroVm,
  SandboxId,
  SandboxRecord,
  SandboxRecords,
  Template,
  TemplateKey,
  Vmm,
  VmmExit,
} from '../src/index.ts';
import { SandboxService, Templates } from '../src/index.ts';

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
  #settle: (exit: VmmExit) => void = () => {};

  constructor(incarnationId: MicroVm['incarnationId']) {
    this.incarnationId = incarnationId;
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

  die(): void {
    this.killed = true;
    this.#settle({ code: null, signal: 'SIGKILL', requested: false, diagnostics: '' });
  }
}

export function ladder(options: { maxAlivePerAccount?: number } = {}) {
  const clock = new ManualClock();
  const vms: HandVm[] = [];
  const guests: HandGuest[] = [];
  const stored = new Map<SandboxId, SandboxRecord>();
  const fail: { restore?: Error; attach?: Error; update?: Error } = {};
  const template: Template = {
    key: 'k' as TemplateKey,
    directory: '/nowhere',
    size: { memoryMib: 512, vcpus: 2 },
    backend: 'hand',
    accelerator: 'none',
  };
  const vmm: Vmm = {
    backend: 'hand',
    accelerator: 'none',
    templateKey: () => template.key,
    findTemplate: async () => template,
    buildTemplate: async () => template,
    restore: async (_template, incarnationId) => {
      if (fail.restore !== undefined) throw fail.restore;
      const vm = new HandVm(incarnationId);
      vms.push(vm);
      return vm;
    },
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
    listUnsettled: async () =>
      [...stored.values()].filter(({ state }) => ['creating', 'running', 'stopping'].includes(state)),
  };
  const images = { kernelPath: '', initramfsPath: '', basePath: '', blankOverlayPath: '', digest: '' };
  const service = new SandboxService<HandGuest>({
    vmm,
    templates: new Templates(vmm, images, () => {}),
    connector,
    records,
    clock,
    log: { info: () => {}, warn: () => {} },
    maxAlivePerAccount: options.maxAlivePerAccount ?? 100,
  });
  const create = (ttlSeconds = 60) =>
    service.create({
      accountId: ACCOUNT,
      size: template.size,
      ttlSeconds,
      metadata: {},
      env: { A: 'b' },
      egress: null,
    });
  return { clock, vms, guests, stored, fail, service, create };
}
