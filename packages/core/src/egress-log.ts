/** The log port: what guests tried to reach, as people see it. Written through `egress-journal.ts`; implemented by `@instavm/store`. */
import type { SandboxId } from './ids.ts';

/** One attempt of a guest to reach something. */
export type EgressRecord = {
  /** When it was asked for. */
  readonly at: Date;
  readonly kind: 'connect' | 'lookup';
  /** The name or address asked for. */
  readonly host: string;
  /** Null for a look-up. */
  readonly port: number | null;
  /** What was dialled. */
  readonly address: string | null;
  readonly allowed: boolean;
  readonly rule: string;
  /** `open` is told to followers when a connection begins, and never stored. */
  readonly outcome: 'open' | 'closed' | 'denied' | 'failed' | 'cut';
  /** A sentence, when it was denied, failed or was cut. */
  readonly reason: string | null;
  /** As the guest sees it. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number | null;
};

/** A row: one attempt, or as many as `repeated` says that were alike. */
export type EgressEntry = EgressRecord & { readonly repeated: number };

/** Numbered per sandbox from 1, without holes until the oldest are forgotten. */
export type StoredEgressEntry = EgressEntry & { readonly id: number };

export type EgressQuery = {
  readonly limit: number;
  /** The oldest rows after this one; without it, the newest. */
  readonly afterId?: number | undefined;
  readonly beforeId?: number | undefined;
  readonly verdict?: 'allowed' | 'denied' | undefined;
  /** This name in lower case, and every name below it. */
  readonly host?: string | undefined;
};

export type EgressPage = {
  /** Oldest first. */
  readonly entries: readonly StoredEgressEntry[];
  /** Of all rows that are kept, whatever was asked for; 0 when there are none. */
  readonly oldestId: number;
  readonly newestId: number;
};

/** Keeps the newest rows of every sandbox, a bounded number, as long as the sandbox's record is kept. */
export interface EgressLog {
  append(sandboxId: SandboxId, entries: readonly EgressEntry[]): Promise<void>;
  list(sandboxId: SandboxId, query: EgressQuery): Promise<EgressPage>;
}
