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
import type { Sandbox } from '../sandbox.ts';
import { isGone, providerError } from './errors.ts';
import { assertSupported, materializeManifest } from './materialize.ts';
import { DEFAULT_LIFETIME_SECONDS, egressPolicy, type InstaVMSandboxClientOptions, mergeOptions } from './options.ts';
import { InstaVMSandboxSession } from './session.ts';
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
      throw new SandboxUnsupportedFeatureError('snapshots are not available on this server yet', {
        feature: 'snapshot',
      });
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
      return new InstaVMSandboxSession(sandbox, state, archiveLimits);
    });
  }

  /** Reconnects while the sandbox lives. Only when the service says that it is gone another one is made from the manifest. */
  async resume(
    state: InstaVMSandboxSessionState,
    options: SandboxClientResumeOptions<InstaVMSandboxClientOptions> = {},
  ): Promise<InstaVMSandboxSession> {
    const merged = mergeOptions({ ...this.#defaults, ...state.options, baseUrl: state.baseUrl }, options.clientOptions);
    const client = this.#client(merged);
    if (await lives(client.sandboxes.attach(state.sandboxId))) {
      return new InstaVMSandboxSession(client.sandboxes.attach(state.sandboxId), state, options.archiveLimits);
    }
    const sandbox = await makeSandbox(client, state.manifest, merged);
    const { exposedPorts: _exposedPorts, ...rest } = state;
    return new InstaVMSandboxSession(
      sandbox,
      { ...rest, sandboxId: sandbox.id } as InstaVMSandboxSessionState,
      options.archiveLimits,
    );
  }

  async serializeSessionState(state: InstaVMSandboxSessionState): Promise<Record<string, unknown>> {
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

  #client({ apiKey, baseUrl }: InstaVMSandboxClientOptions): InstaVM {
    return new InstaVM({ apiKey, baseUrl });
  }
}

/** Whatever fails after the sandbox exists ends it again; the first error is the one thrown. */
async function makeSandbox(
  client: InstaVM,
  manifest: Manifest,
  options: InstaVMSandboxClientOptions,
): Promise<Sandbox> {
  const { memoryMb, cpuCount, timeout = DEFAULT_LIFETIME_SECONDS, metadata, env } = options;
  let sandbox: Sandbox | undefined;
  try {
    sandbox = await client.sandboxes.create({ memoryMb, vcpuCount: cpuCount, ttlSeconds: timeout, metadata, env });
    const policy = egressPolicy(options);
    if (policy !== undefined) await sandbox.setEgressPolicy(policy);
    await materializeManifest(sandbox, manifest, undefined);
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

/** @throws SandboxProviderError when the service does not say */
async function lives(sandbox: Sandbox): Promise<boolean> {
  try {
    const { state } = await sandbox.info();
    return state === 'running' || state === 'creating';
  } catch (error) {
    if (isGone(error)) return false;
    throw providerError(error);
  }
}
