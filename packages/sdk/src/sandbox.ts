/** A sandbox: a microVM's worth of computer, by its id. */
import {
  Egress,
  type EgressGap,
  type EgressLogEntry,
  type EgressLogFilter,
  type EgressLogPage,
  type EgressPolicy,
  type EgressTest,
} from './egress.ts';
import { type Command, Exec, type ExecOptions, type ExecResult } from './exec.ts';
import { Files } from './files.ts';
import type { HttpClient } from './http.ts';
import { Ptys } from './pty.ts';
import { SandboxShares } from './shares.ts';
import { type SnapshotInfo, snapshotInfo } from './snapshots.ts';

export type SandboxState =
  | 'creating'
  | 'running'
  | 'suspending'
  | 'suspended'
  | 'resuming'
  | 'stopping'
  | 'stopped'
  | 'failed';

export type SandboxInfo = {
  readonly id: string;
  readonly state: SandboxState;
  readonly stateReason: string | null;
  /** The present or last microVM. */
  readonly incarnationId: string | null;
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
  readonly memoryMb: number;
  readonly vcpuCount: number;
  readonly metadata: Readonly<Record<string, unknown>>;
};

export type SandboxStats = {
  readonly memoryTotalBytes: number;
  readonly memoryAvailableBytes: number;
  readonly diskTotalBytes: number;
  readonly diskFreeBytes: number;
  readonly agentRssBytes: number;
  readonly processes: number;
  readonly uptimeMs: number;
  readonly cpuTimeMs: number;
};

export type RunResult = ExecResult & {
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly stdoutText: string;
  readonly stderrText: string;
};

export class Sandbox implements AsyncDisposable {
  readonly id: string;
  readonly files: Files;
  /** Terminals. */
  readonly pty: Ptys;
  /** Ports as HTTPS addresses. */
  readonly shares: SandboxShares;
  readonly #http: HttpClient;
  readonly #egress: Egress;

  constructor(http: HttpClient, id: string) {
    this.#http = http;
    this.#egress = new Egress(http, id);
    this.id = id;
    this.files = new Files(http, id);
    this.pty = new Ptys(http, id);
    this.shares = new SandboxShares(http, id);
  }

  /** Starts a command; its streams are the caller's to read. */
  exec(command: Command, options: ExecOptions & { readonly stdin?: boolean } = {}): Promise<Exec> {
    return Exec.start(this.#http, this.id, command, options);
  }

  /** Runs a command to its end and collects its output. A non-zero exit code is a result, not an error. */
  async run(
    command: Command,
    options: ExecOptions & { readonly input?: Uint8Array | string } = {},
  ): Promise<RunResult> {
    const { input, ...rest } = options;
    const exec = await this.exec(command, { ...rest, stdin: input !== undefined });
    const feed = async (): Promise<void> => {
      if (input === undefined) return;
      await exec.writeStdin(input);
      exec.closeStdin();
    };
    const [stdout, stderr, result] = await Promise.all([
      collect(exec.stdout),
      collect(exec.stderr),
      exec.wait(),
      // A command that has ended does not need its input; a connection that was lost is told of by the others.
      feed().catch(() => {}),
    ]);
    return { ...result, stdout, stderr, stdoutText: stdout.toString('utf8'), stderrText: stderr.toString('utf8') };
  }

  /**
   * Keeps memory, processes, terminals and disk, and frees the host of it; success when that is so already. Whatever uses it wakes it.
   * @throws InstaVMError `invalid_state`, `capacity_unavailable`; it then runs on
   */
  async suspend(): Promise<void> {
    await this.#http.json({ method: 'POST', path: this.#path('/suspend') });
  }

  /** Goes on where it was suspended; success when it runs. */
  async resume(): Promise<void> {
    await this.#http.json({ method: 'POST', path: this.#path('/resume') });
  }

  /** Takes a snapshot, from which any number of sandboxes can begin; this one stands still for that time. */
  async snapshot(name?: string): Promise<SnapshotInfo> {
    const path = this.#path('/snapshots');
    return snapshotInfo(await this.#http.json({ method: 'POST', path, json: { name } }));
  }

  /** A second sandbox that begins where this one is now. */
  async fork(): Promise<Sandbox> {
    const [fork] = await this.forks(1);
    return fork as Sandbox;
  }

  /** As many as asked for, up to 32, all from the same moment; none when one of them cannot be made. */
  async forks(count: number): Promise<Sandbox[]> {
    const request = { method: 'POST', path: this.#path('/fork'), json: { count } } as const;
    const { sandboxes } = await this.#http.json<{ sandboxes: { id: string }[] }>(request);
    return sandboxes.map(({ id }) => new Sandbox(this.#http, id));
  }

  async info(): Promise<SandboxInfo> {
    return sandboxInfo(await this.#http.json({ method: 'GET', path: this.#path() }));
  }

  async stats(): Promise<SandboxStats> {
    const stats = await this.#http.json<Record<string, number>>({ method: 'GET', path: this.#path('/stats') });
    const number = (name: string): number => stats[name] ?? Number.NaN;
    return {
      memoryTotalBytes: number('memory_total_bytes'),
      memoryAvailableBytes: number('memory_available_bytes'),
      diskTotalBytes: number('disk_total_bytes'),
      diskFreeBytes: number('disk_free_bytes'),
      agentRssBytes: number('agent_rss_bytes'),
      processes: number('processes'),
      uptimeMs: number('uptime_ms'),
      cpuTimeMs: number('cpu_time_ms'),
    };
  }

  /** Holds from now on; connections that it forbids are cut. @throws InstaVMError `invalid_argument` with everything that is wrong */
  setEgressPolicy(policy: EgressPolicy): Promise<void> {
    return this.#egress.setPolicy(policy);
  }

  /** The one in force, also when nobody set one. */
  getEgressPolicy(): Promise<EgressPolicy> {
    return this.#egress.getPolicy();
  }

  /** What the policy says about `name:port`, or `[address]:port` for IPv6, without connecting. */
  testEgress(destination: string): Promise<EgressTest> {
    return this.#egress.test(destination);
  }

  /** What it tried to reach, newest last: the newest entries, or those after or before one. */
  egressLog(page: EgressLogPage = {}): Promise<EgressLogEntry[]> {
    return this.#egress.log(page);
  }

  /** What it tries to reach, as it happens, from `after` or from now on, until the iteration is ended. */
  followEgressLog(filter: EgressLogFilter = {}): AsyncGenerator<EgressLogEntry | EgressGap> {
    return this.#egress.follow(filter);
  }

  /** Ends the sandbox; success when it has ended already. */
  async delete(): Promise<void> {
    await this.#http.json({ method: 'DELETE', path: this.#path() });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete();
  }

  #path(rest = ''): string {
    return `/v2/sandboxes/${encodeURIComponent(this.id)}${rest}`;
  }
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

type WireSandbox = {
  id: string;
  state: SandboxState;
  state_reason: string | null;
  incarnation_id: string | null;
  created_at: string;
  expires_at: string | null;
  memory_mb: number;
  vcpu_count: number;
  metadata: Record<string, unknown>;
};

export function sandboxInfo(sandbox: WireSandbox): SandboxInfo {
  return {
    id: sandbox.id,
    state: sandbox.state,
    stateReason: sandbox.state_reason,
    incarnationId: sandbox.incarnation_id,
    createdAt: new Date(sandbox.created_at),
    expiresAt: sandbox.expires_at === null ? null : new Date(sandbox.expires_at),
    memoryMb: sandbox.memory_mb,
    vcpuCount: sandbox.vcpu_count,
    metadata: sandbox.metadata,
  };
}
