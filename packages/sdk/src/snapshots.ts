/** Snapshots of sandboxes: what they are, and the account's list of them. */
import type { HttpClient } from './http.ts';

export type SnapshotInfo = {
  readonly id: string;
  readonly name: string;
  /** Only one that is `ready` can be begun in. */
  readonly status: 'building' | 'ready' | 'failed';
  /** Why it failed. */
  readonly error: string | null;
  readonly memoryMb: number;
  readonly vcpuCount: number;
  /** What it occupies on the server's disk. */
  readonly sizeBytes: number;
  readonly createdAt: Date;
};

export class Snapshots {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  /** Newest first. */
  async list(): Promise<SnapshotInfo[]> {
    return (await this.#http.json<WireSnapshot[]>({ method: 'GET', path: '/v1/snapshots' })).map(snapshotInfo);
  }

  /** @throws InstaVMError `snapshot_not_found` */
  async get(id: string): Promise<SnapshotInfo> {
    return snapshotInfo(await this.#http.json({ method: 'GET', path: `/v1/snapshots/${encodeURIComponent(id)}` }));
  }

  /** @throws InstaVMError `snapshot_not_found`, `conflict` while it is taken or restored */
  async delete(id: string): Promise<void> {
    await this.#http.json({ method: 'DELETE', path: `/v1/snapshots/${encodeURIComponent(id)}` });
  }
}

export type WireSnapshot = {
  id: string;
  name: string;
  status: SnapshotInfo['status'];
  error: string | null;
  memory_mb: number;
  vcpu_count: number;
  size_bytes: number;
  created_at: string;
};

export const snapshotInfo = (wire: WireSnapshot): SnapshotInfo => ({
  id: wire.id,
  name: wire.name,
  status: wire.status,
  error: wire.error,
  memoryMb: wire.memory_mb,
  vcpuCount: wire.vcpu_count,
  sizeBytes: wire.size_bytes,
  createdAt: new Date(wire.created_at),
});
