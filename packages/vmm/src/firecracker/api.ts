/**
 * Firecracker's API: HTTP/1.1 on a Unix socket, one request at a time on a connection of its own. Types are those parts of its published
 * OpenAPI description (src/firecracker/swagger/firecracker.yaml) that this backend uses, as of 1.12; later versions keep them.
 */
import { request } from 'node:http';
import type { Socket } from 'node:net';
import { z } from 'zod';
import type { RateLimiter } from './machine.ts';

export type MachineConfiguration = {
  readonly vcpu_count: number;
  readonly mem_size_mib: number;
  readonly smt: boolean;
};
export type BootSource = {
  readonly kernel_image_path: string;
  readonly initrd_path: string;
  readonly boot_args: string;
};
export type Drive = {
  readonly drive_id: string;
  readonly path_on_host: string;
  readonly is_root_device: boolean;
  readonly is_read_only: boolean;
  /** `Unsafe`: the guest's flushes go as far as the host's page cache. */
  readonly cache_type: 'Unsafe' | 'Writeback';
};
export type Vsock = { readonly guest_cid: number; readonly uds_path: string };
export type SnapshotCreateParams = {
  readonly snapshot_type: 'Full' | 'Diff';
  readonly snapshot_path: string;
  readonly mem_file_path: string;
};
export type SnapshotLoadParams = {
  readonly snapshot_path: string;
  /** `File`: mapped privately, so that any number of microVMs share one file. */
  readonly mem_backend: { readonly backend_type: 'File'; readonly backend_path: string };
  /** Keeps account of the pages that are written to. Versions from 1.13 on call it `track_dirty_pages`, and know this name as well. */
  readonly enable_diff_snapshots: boolean;
  readonly resume_vm: boolean;
};

/** Path → body of a PUT. */
type Puts = {
  '/machine-config': MachineConfiguration;
  '/boot-source': BootSource;
  '/drives/base': Drive;
  '/drives/overlay': Drive;
  '/vsock': Vsock;
  '/entropy': Record<string, never>;
  '/actions': { readonly action_type: 'InstanceStart' };
  '/snapshot/create': SnapshotCreateParams;
  '/snapshot/load': SnapshotLoadParams;
};

/** Path → body of a PATCH of what runs already. */
type Patches = {
  '/vm': { readonly state: 'Paused' | 'Resumed' };
  '/drives/base': DriveUpdate;
  '/drives/overlay': DriveUpdate;
};
export type DriveUpdate = { readonly drive_id: string; readonly rate_limiter: RateLimiter };

const InstanceInfo = z.object({ state: z.enum(['Not started', 'Running', 'Paused']), vmm_version: z.string() });
export type InstanceInfo = z.infer<typeof InstanceInfo>;

const Fault = z.object({ fault_message: z.string() });

const MAX_ANSWER_BYTES = 64 * 1024;
/** Calls take milliseconds. The second is for the memory of the largest machine, on a busy disk. */
const DEADLINES: ApiDeadlines = { callMs: 10_000, snapshotMs: 300_000 };
/** Nothing depends on it, and the end of a microVM waits for it. */
const FLUSH_DEADLINE_MS = 250;

/** Firecracker answered and said no, or did not answer. */
export class FirecrackerFault extends Error {
  override readonly name = 'FirecrackerFault';
}

/** There was nobody to ask. */
export class FirecrackerUnreachable extends FirecrackerFault {}

export type ApiDeadlines = { readonly callMs: number; readonly snapshotMs: number };

export class FirecrackerApi {
  readonly #connect: () => Promise<Socket>;
  readonly #deadlines: ApiDeadlines;

  /** @param connect opens a connection to the API's socket, or throws FirecrackerUnreachable */
  constructor(connect: () => Promise<Socket>, deadlines: ApiDeadlines = DEADLINES) {
    this.#connect = connect;
    this.#deadlines = deadlines;
  }

  /** @throws FirecrackerFault */
  async put<P extends keyof Puts>(path: P, body: Puts[P]): Promise<void> {
    const { callMs, snapshotMs } = this.#deadlines;
    const deadlineMs = path.startsWith('/snapshot/') ? snapshotMs : callMs;
    await this.#send('PUT', path, body, deadlineMs);
  }

  /** @throws FirecrackerFault */
  async patch<P extends keyof Patches>(path: P, body: Patches[P]): Promise<void> {
    await this.#send('PATCH', path, body, this.#deadlines.callMs);
  }

  /** Holds the vCPUs, or lets them go on. @throws FirecrackerFault */
  setState(state: 'Paused' | 'Resumed'): Promise<void> {
    return this.patch('/vm', { state });
  }

  /** Has it write a line of what it counts. @throws FirecrackerFault */
  async flushMetrics(): Promise<void> {
    await this.#send('PUT', '/actions', { action_type: 'FlushMetrics' }, FLUSH_DEADLINE_MS);
  }

  /** @throws FirecrackerFault */
  async info(): Promise<InstanceInfo> {
    const parsed = InstanceInfo.safeParse(await this.#send('GET', '/', undefined, this.#deadlines.callMs));
    if (!parsed.success) throw new FirecrackerFault('the answer to GET / is not what the API describes');
    return parsed.data;
  }

  async #send(method: string, path: string, body: unknown, deadlineMs: number): Promise<unknown> {
    const socket = await this.#connect();
    const text = body === undefined ? '' : JSON.stringify(body);
    const headers = { accept: 'application/json', 'content-type': 'application/json', connection: 'close' };
    let timer: NodeJS.Timeout | undefined;
    const { status, answer } = await new Promise<{ status: number; answer: string }>((resolve, reject) => {
      const fail = (why: string): void => {
        socket.destroy();
        reject(new FirecrackerFault(`${method} ${path}: ${why}`));
      };
      // For all of the answer. `request`'s own timeout does not watch a socket that it is given.
      timer = setTimeout(() => fail(`no answer within ${deadlineMs} ms`), deadlineMs);
      const outgoing = request({ createConnection: () => socket, method, path, headers });
      outgoing.on('error', (error) => fail(error.message));
      // Of one that changes the protocol nothing else is heard. Whoever has an answer by then has it.
      outgoing.on('close', () => fail('the connection ended without an answer'));
      outgoing.on('response', (response) => {
        let answer = '';
        response.setEncoding('utf8');
        response.on('data', (piece: string) => {
          answer += piece;
          if (answer.length > MAX_ANSWER_BYTES) fail('the answer is too long');
        });
        response.on('error', (error) => fail(error.message));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, answer }));
      });
      outgoing.end(text);
    }).finally(() => {
      clearTimeout(timer);
      socket.destroy();
    });
    const parsed = parse(answer);
    if (status >= 200 && status < 300) return parsed;
    const fault = Fault.safeParse(parsed);
    throw new FirecrackerFault(`${method} ${path}: ${fault.success ? fault.data.fault_message : `status ${status}`}`);
  }
}

function parse(text: string): unknown {
  try {
    return text === '' ? undefined : JSON.parse(text);
  } catch {
    // No JSON is no answer that anybody waits for.
    return undefined;
  }
}
