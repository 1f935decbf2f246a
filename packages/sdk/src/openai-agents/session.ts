/** A sandbox as the Agents SDK sees it. The façade: processes, manifests, the editor and paths are neighbours. */
import { posix } from 'node:path';
import type { Editor } from '@openai/agents-core';
import {
  type Entry,
  type ExecCommandArgs,
  type ExposedPortEndpoint,
  type ListDirectoryArgs,
  Manifest,
  type MaterializeEntryArgs,
  type ReadFileArgs,
  resolveSandboxArchiveLimits,
  type SandboxArchiveLimits,
  SandboxConfigurationError,
  type SandboxDirectoryEntry,
  type SandboxExecResult,
  type SandboxSession,
  type ViewImageArgs,
  validateSandboxArchiveLimits,
  type WorkspaceArchiveData,
  type WorkspaceArchiveOptions,
  WorkspacePathPolicy,
  type WriteStdinArgs,
  withSandboxSpan,
} from '@openai/agents-core/sandbox';
import type { EgressPolicy } from '../egress.ts';
import { InstaVMError } from '../errors.ts';
import type { Sandbox } from '../sandbox.ts';
import { createEditor } from './editor.ts';
import { fileError, isGone, providerError } from './errors.ts';
import { resolveExposedPort } from './exposed-ports.ts';
import { imageOutputFromBytes, MAX_VIEW_IMAGE_BYTES, mergeManifestDelta, shellQuote } from './internals.ts';
import { assertSupported, materializeEntries, materializeManifest } from './materialize.ts';
import { egressOptions } from './options.ts';
import { formatResult, Processes, type ResizePtyArgs } from './processes.ts';
import { referencedSnapshot, runSnapshotName, snapshotReference } from './snapshot-reference.ts';
import type { InstaVMSandboxSessionState } from './state.ts';

type ToolImage = ReturnType<typeof imageOutputFromBytes>;

export class InstaVMSandboxSession implements SandboxSession<InstaVMSandboxSessionState> {
  readonly state: InstaVMSandboxSessionState;
  /** Another one after a snapshot was restored. */
  sandbox: Sandbox;
  #processes: Processes;
  readonly #beginIn: (snapshotId: string) => Promise<Sandbox>;
  /** Manifest changes of several runs that share the session happen one after another. */
  #manifestQueue: Promise<unknown> = Promise.resolve();
  #archiveLimits: SandboxArchiveLimits | null | undefined;
  #deleted: Promise<void> | undefined;

  /** @param beginIn makes a sandbox like this one that begins in a snapshot */
  constructor(
    sandbox: Sandbox,
    state: InstaVMSandboxSessionState,
    beginIn: (snapshotId: string) => Promise<Sandbox>,
    archiveLimits?: SandboxArchiveLimits | null,
  ) {
    this.sandbox = sandbox;
    this.#beginIn = beginIn;
    this.state = state;
    this.#archiveLimits = archiveLimits;
    this.#processes = new Processes(sandbox);
  }

  async start(): Promise<void> {
    await this.#provider(() => this.sandbox.files.mkdir(this.state.manifest.root, { parents: true }));
    this.state.workspaceReady = true;
  }

  async running(): Promise<boolean> {
    try {
      // One that is suspended is woken by its next use.
      return ['running', 'suspending', 'suspended', 'resuming'].includes((await this.sandbox.info()).state);
    } catch {
      return false;
    }
  }

  async exec(args: ExecCommandArgs): Promise<SandboxExecResult> {
    const { root } = this.state.manifest;
    const cwd = args.workdir === undefined ? root : posix.resolve(root, args.workdir);
    return this.#processes.exec(args, { cwd, env: this.state.environment, user: args.runAs });
  }

  async execCommand(args: ExecCommandArgs): Promise<string> {
    return formatResult(await this.exec(args));
  }

  supportsPty(): boolean {
    return true;
  }

  writeStdin(args: WriteStdinArgs): Promise<string> {
    return this.#processes.writeStdin(args);
  }

  /** Sets the window size of a command that runs in a terminal. */
  resizePty(args: ResizePtyArgs): Promise<void> {
    return this.#processes.resize(args);
  }

  createEditor(runAs?: string): Editor {
    return createEditor({ files: this.sandbox.files, resolve: (path) => this.#locate(path, true) }, runAs);
  }

  async viewImage({ path, runAs }: ViewImageArgs): Promise<ToolImage> {
    return imageOutputFromBytes(path, await this.#read(path, runAs, MAX_VIEW_IMAGE_BYTES + 1));
  }

  readFile({ path, runAs, maxBytes }: ReadFileArgs): Promise<Uint8Array> {
    return this.#read(path, runAs, maxBytes);
  }

  async listDir({ path, runAs }: ListDirectoryArgs): Promise<SandboxDirectoryEntry[]> {
    const { path: absolute, within } = this.#locate(path, false);
    const entries = await this.sandbox.files.list(absolute, { within, user: runAs }).catch(failure(path));
    const inWorkspace = posix.relative(this.state.manifest.root, absolute);
    return entries.map(({ name, kind }) => ({
      name,
      path: posix.join(inWorkspace, name),
      type: kind === 'file' || kind === 'dir' ? kind : 'other',
    }));
  }

  async pathExists(path: string, runAs?: string): Promise<boolean> {
    return (await this.#stat(path, runAs)) !== undefined;
  }

  async directoryExists(path: string, runAs?: string): Promise<boolean> {
    if ((await this.#stat(path, runAs))?.kind !== 'dir') return false;
    const { path: absolute } = this.#locate(path, false);
    return (
      (await this.#provider(() => this.sandbox.run(['test', '-x', absolute], { cwd: '/', user: runAs }))).exitCode === 0
    );
  }

  materializeEntry({ path, entry, runAs }: MaterializeEntryArgs): Promise<void> {
    return this.#add(
      new Manifest({ root: this.state.manifest.root, entries: { [path]: entry } as Record<string, Entry> }),
      runAs,
    );
  }

  applyManifest(manifest: Manifest, runAs?: string): Promise<void> {
    return this.#add(manifest, runAs);
  }

  setArchiveLimits(limits?: SandboxArchiveLimits | null): void {
    validateSandboxArchiveLimits(limits);
    this.#archiveLimits = limits;
  }

  /**
   * A reference to a snapshot of the whole sandbox; or, when the manifest has something ephemeral, which a snapshot could not leave out,
   * or the server can take none, the workspace as a tar.
   */
  async persistWorkspace(): Promise<Uint8Array> {
    const exclude = [...this.state.manifest.ephemeralPersistencePaths()];
    if (exclude.length === 0) {
      const snapshot = await this.sandbox.snapshot(runSnapshotName()).catch((error: unknown) => {
        if (!(error instanceof InstaVMError)) throw error;
      });
      if (snapshot) return snapshotReference(snapshot.id);
    }
    const chunks: Uint8Array[] = [];
    await this.#provider(async () => {
      for await (const chunk of this.sandbox.files.packTar(this.state.manifest.root, { exclude })) chunks.push(chunk);
    });
    return Buffer.concat(chunks);
  }

  /**
   * Replaces the workspace by an archive, or the whole sandbox by another one that begins in a snapshot. A tar is unpacked beside the
   * workspace first, and a snapshot restored before the old sandbox is ended, so a bad one changes nothing.
   */
  async hydrateWorkspace(data: WorkspaceArchiveData, options: WorkspaceArchiveOptions = {}): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data, 'latin1') : new Uint8Array(data);
    const snapshotId = referencedSnapshot(bytes);
    if (snapshotId !== undefined) return this.#restore(snapshotId);
    const limits = resolveSandboxArchiveLimits(
      options.archiveLimits === undefined ? this.#archiveLimits : options.archiveLimits,
    );
    if (limits?.maxInputBytes != null && bytes.length > limits.maxInputBytes) {
      throw new SandboxConfigurationError(
        `the archive has ${bytes.length} bytes; the limit is ${limits.maxInputBytes}`,
      );
    }
    const { root } = this.state.manifest;
    const beside = `${posix.join(posix.dirname(root), `.${posix.basename(root)}-hydrate`)}-${crypto.randomUUID()}`;
    const bounds = { maxBytes: limits?.maxExtractedBytes ?? undefined, maxEntries: limits?.maxMembers ?? undefined };
    try {
      await this.#provider(() => this.sandbox.files.unpackTar(beside, bytes, { within: [beside], ...bounds }));
      const script = `set -e\nmkdir -p ${shellQuote(root)}\nfind ${shellQuote(root)} -mindepth 1 -maxdepth 1 -exec rm -rf {} +
find ${shellQuote(beside)} -mindepth 1 -maxdepth 1 -exec mv -t ${shellQuote(root)} {} +`;
      const moved = await this.#provider(() => this.sandbox.run(script, { cwd: '/' }));
      if (moved.exitCode !== 0)
        throw new SandboxConfigurationError(`the workspace could not be replaced: ${moved.stderrText.trim()}`);
    } finally {
      await this.sandbox.files.remove(beside, { recursive: true, force: true }).catch(() => {});
    }
  }

  async #restore(snapshotId: string): Promise<void> {
    const restored = await this.#provider(() => this.#beginIn(snapshotId));
    try {
      await this.#processes.close();
      await this.sandbox.delete();
    } catch (error) {
      if (!isGone(error)) {
        await restored.delete().catch(() => {});
        throw providerError(error);
      }
    }
    if (this.#deleted !== undefined) {
      await restored.delete().catch(() => {});
      throw new SandboxConfigurationError('the session was ended while a snapshot was being restored');
    }
    this.sandbox = restored;
    this.#processes = new Processes(restored);
    this.state.sandboxId = restored.id;
    delete this.state.exposedPorts;
  }

  /** Where a port is reached from outside; nothing need listen there yet. Any port when `exposedPorts` lists none. */
  resolveExposedPort(port: number): Promise<ExposedPortEndpoint> {
    return resolveExposedPort(this.sandbox, this.state, port);
  }

  /** Holds from now on, also for the sandbox that takes the place of this one when it is gone; connections that it forbids are cut. */
  async setEgressPolicy(policy: EgressPolicy): Promise<void> {
    await this.#provider(() => this.sandbox.setEgressPolicy(policy));
    this.state.options = { ...this.state.options, ...egressOptions(policy) };
  }

  getEgressPolicy(): Promise<EgressPolicy> {
    return this.#provider(() => this.sandbox.getEgressPolicy());
  }

  /** Ends commands, not the sandbox. */
  stop(): Promise<void> {
    return this.#processes.close();
  }

  shutdown(): Promise<void> {
    return this.delete();
  }

  /** Ends the sandbox, once; again when that failed. */
  delete(): Promise<void> {
    this.#deleted ??= this.#end().catch((error: unknown) => {
      this.#deleted = undefined;
      throw error;
    });
    return this.#deleted;
  }

  #end(): Promise<void> {
    return withSandboxSpan('sandbox.shutdown', { backend_id: 'instavm', sandbox_id: this.sandbox.id }, async () => {
      await this.#processes.close();
      await this.sandbox.delete().catch((error: unknown) => {
        if (!isGone(error)) throw providerError(error);
      });
    });
  }

  close(): Promise<void> {
    return this.delete();
  }

  #locate(path: string, forWrite: boolean): { path: string; within: string[] } {
    const { root, extraPathGrants } = this.state.manifest;
    const resolved = new WorkspacePathPolicy({ root, extraPathGrants }).resolve(path, { forWrite });
    const grants = extraPathGrants.filter((grant) => !forWrite || !grant.readOnly);
    return { path: resolved.path, within: [root, ...grants.map((grant) => grant.path)] };
  }

  async #read(path: string, user: string | undefined, maxBytes: number | undefined): Promise<Uint8Array> {
    const { path: absolute, within } = this.#locate(path, false);
    return this.sandbox.files.read(absolute, { within, user, maxBytes }).catch(failure(path));
  }

  /** Undefined only when the path is known to be missing. */
  async #stat(path: string, user: string | undefined) {
    const { path: absolute, within } = this.#locate(path, false);
    try {
      return await this.sandbox.files.stat(absolute, { within, user });
    } catch (error) {
      if (error instanceof InstaVMError && (error.code === 'file_not_found' || error.code === 'file_not_a_directory'))
        return undefined;
      throw fileError(error, path);
    }
  }

  #add(delta: Manifest, runAs: string | undefined): Promise<void> {
    const apply = async (): Promise<void> => {
      if (delta.root !== this.state.manifest.root) {
        throw new SandboxConfigurationError(
          `the workspace root is ${this.state.manifest.root}; it cannot become ${delta.root}`,
        );
      }
      assertSupported(delta);
      const hasAccounts = delta.users.length > 0 || delta.groups.length > 0;
      await this.#provider(() =>
        hasAccounts
          ? materializeManifest(this.sandbox, delta, runAs)
          : materializeEntries(this.sandbox, delta, delta.validatedEntries(), runAs),
      );
      this.state.manifest = mergeManifestDelta(this.state.manifest, delta);
      this.state.environment = { ...this.state.environment, ...(await delta.resolveEnvironment()) };
    };
    const result = this.#manifestQueue.then(apply);
    this.#manifestQueue = result.catch(() => {});
    return result;
  }

  async #provider<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      throw providerError(error);
    }
  }
}

const failure =
  (path: string) =>
  (error: unknown): never => {
    throw fileError(error, path);
  };
