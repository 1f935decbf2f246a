/** What one sandbox did in one window of the journal: a bounded number of rows, and an honest count of what did not become one. */
import type { EgressEntry, EgressRecord } from './egress-log.ts';

/** The rule of a row that stands for attempts which were too many to be listed one by one. */
export const NOT_LISTED = 'not_listed';

/** Names are the guest's own, and reasons quote them. */
const MAX_HOST_LENGTH = 255;
const MAX_REASON_LENGTH = 1_000;

type Growing = { -readonly [Key in keyof EgressEntry]: EgressEntry[Key] };

export class EgressBatch {
  readonly #rows: Growing[] = [];
  readonly #alike = new Map<string, Growing>();
  readonly #unlisted = new Map<boolean, Growing>();

  get rowCount(): number {
    return this.#rows.length;
  }

  /** What was kept, and after it at most two rows for what was not. */
  get entries(): EgressEntry[] {
    return [...this.#rows, ...this.#unlisted.values()];
  }

  /** @param mayGrow false: it is counted, and becomes a row of its own only when it is like one that is there */
  add(record: EgressRecord, mayGrow: boolean): void {
    const key = likeness(record);
    const alike = key === undefined ? undefined : this.#alike.get(key);
    if (alike !== undefined) {
      alike.repeated++;
      return;
    }
    if (!mayGrow) {
      this.addUnlisted({ ...record, repeated: 1 });
      return;
    }
    const { host, reason } = record;
    const row = { ...record, host: host.slice(0, MAX_HOST_LENGTH), reason: shortened(reason), repeated: 1 };
    this.#rows.push(row);
    if (key !== undefined) this.#alike.set(key, row);
  }

  /** Counts, without a row of its own. */
  addUnlisted({ at, allowed, bytesSent, bytesReceived, repeated }: EgressEntry): void {
    const sum = this.#unlisted.get(allowed);
    if (sum === undefined) {
      const outcome = allowed ? 'closed' : 'denied';
      const reason = 'attempts that were too many at once, or could not be written down, to be listed one by one';
      const what = { at, kind: 'connect', host: '*', port: null, address: null, allowed, rule: NOT_LISTED } as const;
      this.#unlisted.set(allowed, { ...what, outcome, reason, bytesSent, bytesReceived, durationMs: null, repeated });
      return;
    }
    sum.bytesSent += bytesSent;
    sum.bytesReceived += bytesReceived;
    sum.repeated += repeated;
  }
}

/** @returns undefined for what is always a row of its own: a connection that carried something */
function likeness(record: EgressRecord): string | undefined {
  const { kind, host, port, address, rule, outcome, reason } = record;
  if (kind === 'connect' && outcome !== 'denied' && outcome !== 'failed') return undefined;
  return JSON.stringify([kind, host, port, address, rule, outcome, reason]);
}

const shortened = (text: string | null): string | null => text?.slice(0, MAX_REASON_LENGTH) ?? null;
