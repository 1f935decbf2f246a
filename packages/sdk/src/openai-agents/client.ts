/** The sandbox client of the OpenAI Agents SDK: makes, resumes and ends sandboxes. */
import {
  type Manifest,
  normalizeSandboxClientCreateArgs,
  type SandboxClient,
  type SandboxClientCreateArgs,
  type SandboxClientResumeOptions,
  SandboxUnsupportedFeatureError,
  withSandboxSpan,
} from '@openai/agents-core/sandbox';
import { InstaVM } from '../client.ts';
import type { EgressPolicy } from '../egress.ts';
import { InstaVMError } from '../errors.ts';
import type { Sandbox } from '../sandbox.ts';
import { isGone, providerError } from './errors.ts';
import { assertSupported, materializeManifest } from './materialize.ts';
import {
  DEFAULT_LIFETIME_SECONDS,
  egressOptions,
  egressPolicy,
  hasEgressOptions,
  type InstaVMSandboxClientOptions,
  mergeOptions,
} from './options.ts';
import { InstaVMSandboxSession } from './session.ts';
import { runSnapshotName } from './snapshot-reference.ts';
import { deserializeState, type InstaVMSandboxSessionState, serializeState } from './state.ts';

const BACKEND_ID = 'instavm';

export class InstaVMSandboxClient implements SandboxClient<InstaVMSandboxClientOptions, InstaVMSandboxSessionState> {
  readonly backendId = BACKEND_ID;
  readonly #defaults: InstaVMSandboxClientOptions;

  /** No option is needed when `INSTAVM_API_KEY` is set. */
  constructor(defaults: InstaVMSandboxClientOptions = {}) {
    this.#defaults = mergeOptions(defaults, undefined);
  }

  async create(
    args?: SandboxClientCreateArgs<InstaVMSandboxClientOptions> | Manifest,
    manifestOptions?: InstaVMSandboxClientOptions,
  ): Promise<InstaVMSandboxSession> {
    const { manifest, options, snapshot, archiveLimits } = normalizeSandboxClientCreateArgs(args, manifestOptions);
    const merged = mergeOptions(this.#defaults, options);
    if (snapshot !== undefined && (snapshot as { type?: string } | null)?.type !== 'noop') {
      throw new SandboxUnsupportedFeatureError(
        'this provider keeps snapshots on the server: persistWorkspace, and the snapshotId option, use them',
        { feature: 'snapshot' },
      );
    }
    assertSupported(manifest);
    return withSandboxSpan('sandbox.start', { backend_id: BACKEND_ID }, async () => {
      const environment = { ...merged.env, ...(await manifest.resolveEnvironment()) };
      const client = this.#client(merged);
      const sandbox = await makeSandbox(client, manifest, merged);
      const { apiKey: _apiKey, baseUrl: _baseUrl, ...kept } = merged;
      const state = {
        manifest,
        environment,
        sandboxId: sandbox.id,
        baseUrl: client.baseUrl,
        options: kept,
        workspaceReady: true,
      };
      return this.#session(client, sandbox, state, archiveLimits);
    });
  }

  /**
   * Reconnects while the sandbox lives, suspended or not. Only when the service says that it is gone another one is made: from the
   * snapshot that was taken when the session was closed, else from the manifest.
   */
  async resume(
    state: InstaVMSandboxSessionState,
    options: SandboxClientResumeOptions<InstaVMSandboxClientOptions> = {},
  ): Promise<InstaVMSandboxSession> {
    const merged = mergeOptions({ ...this.#defaults, ...state.options, baseUrl: state.baseUrl }, options.clientOptions);
    const client = this.#client(merged);
    const known = client.sandboxes.attach(state.sandboxId);
    // Only when this call says something: the policy may have been changed since the state was stored.
    const policy = hasEgressOptions(options.clientOptions) ? egressPolicy(merged) : undefined;
    if (policy !== undefined) state.options = { ...state.options, ...egressOptions(policy) };
    if (await lives(known)) {
      if (policy !== undefined) await setPolicy(known, policy);
      return this.#session(client, known, state, options.archiveLimits);
    }
    const { exposedPorts: _exposedPorts, lastSnapshotId, ...rest } = state;
    const sandbox =
      lastSnapshotId === undefined
        ? await makeSandbox(client, state.manifest, merged)
        : await makeSandbox(client, undefined, { ...merged, snapshotId: lastSnapshotId });
    const renewed = { ...rest, sandboxId: sandbox.id } as InstaVMSandboxSessionState;
    return this.#session(client, sandbox, renewed, options.archiveLimits);
  }

  /** One that is about to be closed is kept in a snapshot, so that a later run goes on where it ended. */
  async serializeSessionState(
    state: InstaVMSandboxSessionState,
    options: { willCloseAfterSerialize?: boolean } = {},
  ): Promise<Record<string, unknown>> {
    if (options.willCloseAfterSerialize) {
      const sandbox = this.#client({ ...this.#defaults, baseUrl: state.baseUrl }).sandboxes.attach(state.sandboxId);
      const taken = await sandbox.snapshot(runSnapshotName()).catch(unlessOurs);
      // Without one the session is made again from its manifest.
      if (taken) state.lastSnapshotId = taken.id;
    }
    return serializeState(state);
  }

  deserializeSessionState(record: Record<string, unknown>): Promise<InstaVMSandboxSessionState> {
    return deserializeState(record);
  }

  async delete(state: InstaVMSandboxSessionState): Promise<void> {
    const client = this.#client({ ...this.#defaults, baseUrl: state.baseUrl });
    await client.sandboxes
      .attach(state.sandboxId)
      .delete()
      .catch((error: unknown) => {
        if (!isGone(error)) throw providerError(error);
      });
  }

  #session(
    client: InstaVM,
    sandbox: Sandbox,
    state: InstaVMSandboxSessionState,
    archiveLimits: ConstructorParameters<typeof InstaVMSandboxSession>[3],
  ): InstaVMSandboxSession {
    const beginIn = (snapshotId: string): Promise<Sandbox> =>
      makeSandbox(client, undefined, { ...state.options, snapshotId });
    return new InstaVMSandboxSession(sandbox, state, beginIn, archiveLimits);
  }

  #client({ apiKey, baseUrl }: InstaVMSandboxClientOptions): InstaVM {
    return new InstaVM({ apiKey, baseUrl });
  }
}

/** Whatever fails after the sandbox exists ends it again; the first error is the one thrown. */
async function makeSandbox(
  client: InstaVM,
  manifest: Manifest | undefined,
  options: InstaVMSandboxClientOptions,
): Promise<Sandbox> {
  const { memoryMb, cpuCount, timeout = DEFAULT_LIFETIME_SECONDS, metadata, env, snapshotId } = options;
  const snapshotOnExpiry = options.snapshotOnTerminate ? (options.snapshotName ?? runSnapshotName()) : undefined;
  // A snapshot of a sandbox that was closed off is opened by an option only, not by the default of one.
  const egress = snapshotId === undefined || hasEgressOptions(options) ? egressPolicy(options) : undefined;
  // The size is the snapshot's.
  const size = snapshotId === undefined ? { memoryMb, vcpuCount: cpuCount } : {};
  let sandbox: Sandbox | undefined;
  try {
    sandbox = await client.sandboxes.create({
      ...size,
      ttlSeconds: timeout,
      metadata,
      env,
      egress,
      snapshotId,
      snapshotOnExpiry,
    });
    if (manifest !== undefined) await materializeManifest(sandbox, manifest, undefined);
    return sandbox;
  } catch (error) {
    const failure = providerError(error);
    const left = await sandbox?.delete().then(
      () => undefined,
      (cause: unknown) => cause,
    );
    if (left !== undefined)
      throw new AggregateError([failure, left], 'the sandbox could not be prepared, and could not be ended');
    throw failure;
  }
}

/** @throws SandboxProviderError */
async function setPolicy(sandbox: Sandbox, policy: EgressPolicy): Promise<void> {
  try {
    await sandbox.setEgressPolicy(policy);
  } catch (error) {
    throw providerError(error);
  }
}

/** @throws SandboxProviderError when the service does not say */
async function lives(sandbox: Sandbox): Promise<boolean> {
  try {
    const { state } = await sandbox.info();
    return !['stopping', 'stopped', 'failed'].includes(state);
  } catch (error) {
    if (isGone(error)) return false;
    throw providerError(error);
  }
}

/** A server's failure to take one is no failure of the run that ends. */
function unlessOurs(error: unknown): undefined {
  if (!(error instanceof InstaVMError)) throw error;
}
