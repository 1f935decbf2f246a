/**
 * The VMM port: how the rest of the system makes, reaches and ends microVMs. Backends: `firecracker`, `qemu`,
 * `fake`; all pass `@instavm/vmm/contract`. A backend owns its processes, sockets and run directories; it leaves
 * policy, naming of sandboxes and guest protocol to its callers.
 */
import type { Duplex } from 'node:stream';
import type { IncarnationId, TemplateKey } from './ids.ts';

/** What runs the guest's instructions. `tcg` is emulation: correct, slow, and not a security boundary. */
export type Accelerator = 'kvm' | 'tcg' | 'none';

/** Size of a microVM. Templates exist per size. */
export type MachineSize = { readonly memoryMib: number; readonly vcpus: number };

/** Files a template is made from, all read-only and content-addressed by `digest`. */
export type GuestImages = {
  /** As Debian packs it, for QEMU. */
  readonly kernelPath: string;
  /** The same kernel unpacked, for Firecracker. */
  readonly kernelElfPath: string;
  readonly initramfsPath: string;
  /** erofs, attached read-only with serial `base`. */
  readonly basePath: string;
  /** A formatted, empty, sparse ext4 image; the template's overlay starts as a copy of it. Serial `overlay`. */
  readonly blankOverlayPath: string;
  /** Hex digest over all of them. */
  readonly digest: string;
};

/** A frozen microVM on disk: memory, device state and overlay, never written again. */
export type Template = {
  readonly key: TemplateKey;
  /** Which building under that key: made again, it has other memory. */
  readonly buildId: string;
  readonly directory: string;
  readonly size: MachineSize;
  readonly backend: string;
  readonly accelerator: Accelerator;
};

/**
 * A frozen microVM of one sandbox on disk: what differs from its template in memory, the device state, the overlay. Complete, and never
 * written again.
 */
export type VmSnapshot = {
  readonly directory: string;
  readonly templateKey: TemplateKey;
  /** The building that it is different from; undefined where its manifest does not say. */
  readonly templateBuildId: string | undefined;
  readonly size: MachineSize;
  readonly backend: string;
  readonly accelerator: Accelerator;
  /** What it occupies on disk. */
  readonly storedBytes: number;
};

export type VmmExit = {
  /** Exit status of the VMM process, null when a signal ended it. */
  readonly code: number | null;
  readonly signal: string | null;
  /** True when `kill` asked for it. */
  readonly requested: boolean;
  /** Last lines of the VMM's stderr and the guest console, for the log, never for clients. */
  readonly diagnostics: string;
};

export type Channel = 'control' | 'egress';

/** One microVM: one VMM process. */
export interface MicroVm {
  readonly incarnationId: IncarnationId;
  readonly accelerator: Accelerator;
  /** Process id of the VMM; undefined on backends without a process. */
  readonly pid: number | undefined;
  /**
   * Opens the raw byte stream of a channel; at most one at a time per channel (closing the old one first is the
   * caller's duty). The stream may carry stale bytes: the SYNC handshake of spec/agent.proto comes next.
   */
  connect(channel: Channel): Promise<Duplex>;
  /** Settles once, when the VMM process is gone. Never rejects. */
  readonly exited: Promise<VmmExit>;
  /**
   * Pauses the vCPUs, stores memory, device state and disk, and puts all in `directory`, which appears complete or not at all. The
   * caller has had the guest flush its filesystems.
   * @param directory must not exist
   * @param then `continue`: the guest runs on; on some backends its streams have ended and are to be opened again. `end`: the VMM is gone afterwards, as after `kill`
   * @throws snapshot_failed, capacity_unavailable; the guest then runs on
   */
  snapshot(directory: string, then: 'continue' | 'end'): Promise<VmSnapshot>;
  /** Ends the VMM and removes its run directory and sockets. Idempotent; resolves when all is gone. */
  kill(): Promise<void>;
}

/** What one VMM has counted since it last told. */
export type VmmCounts = {
  /** System calls that its seccomp filter did not allow: it ends with the first. */
  readonly seccompFaults: number;
  /** vCPUs that could not run on. */
  readonly vcpuFailures: number;
  readonly diskReadBytes: number;
  readonly diskWrittenBytes: number;
  /** Times that a disk had the guest wait for its rate. */
  readonly diskThrottled: number;
  /** On all channels, as the host sees them. */
  readonly channelReceivedBytes: number;
  readonly channelSentBytes: number;
};
/**
 * Told by backends whose VMMs count, which only Firecracker does. What is told is bounded, and no truer than a VMM that a guest may have taken over.
 * @param vmm the name of its jail, for the log
 */
export type VmmObserver = (vmm: string, counts: VmmCounts) => void;

export type BuildProgress = (step: string) => void;

export interface Vmm {
  readonly backend: string;
  readonly accelerator: Accelerator;
  /** The key `buildTemplate` would give; a pure function of images, size, VMM version and host CPU. */
  templateKey(images: GuestImages, size: MachineSize): TemplateKey;
  /** @returns the finished template, or undefined when none with this key is complete and intact. */
  findTemplate(key: TemplateKey): Promise<Template | undefined>;
  /**
   * Boots, warms and freezes a microVM. Written beside and renamed: a build killed half-way leaves nothing that
   * `findTemplate` accepts. Concurrent calls for one key join.
   * @throws boot_failed, with the guest console's last lines in `details`
   */
  buildTemplate(images: GuestImages, size: MachineSize, progress: BuildProgress): Promise<Template>;
  /**
   * Starts a copy-on-write clone of a template, or of a snapshot, any number of times. Resolves when the VMM runs and its sockets
   * accept; the guest may still be loading (readiness is a Ping over `control`).
   * @throws boot_failed, capacity_unavailable; snapshot_damaged; snapshot_incompatible when another backend or accelerator made the snapshot, or over another template or another building of it
   */
  restore(source: Template | VmSnapshot, incarnationId: IncarnationId): Promise<MicroVm>;
  /**
   * @returns the snapshot in `directory` when it is complete, else undefined; another backend's too, for `restore` to refuse. Whether its digest
   * holds is found out here or, where that goes beside loading it, by `restore`
   */
  findSnapshot(directory: string): Promise<VmSnapshot | undefined>;
  /** Removes what interrupted snapshots left in a directory of snapshots. @returns how many */
  removePartialSnapshots(parent: string): Promise<number>;
  /**
   * Takes over the microVMs that an earlier daemon of this data directory left running. Each is proven to be what it seems (executable,
   * start time, working directory, name), not assumed from a process id; one that stands still goes on.
   */
  adoptSurvivors(): Promise<MicroVm[]>;
  /** Ends VMM processes and removes run directories that nothing restored or adopted here holds. @returns how many */
  reapLeftovers(): Promise<number>;
}
