/** The tables, as Kysely sees them. Instants are ISO-8601 UTC text, objects are JSON text. */
import type { Generated } from 'kysely';

export type Tables = {
  accounts: { id: string; email: string; name: string; created_at: string };
  api_keys: {
    id: Generated<number>;
    account_id: string;
    name: string;
    /** First characters, to tell keys apart; the key itself is nowhere. */
    prefix: string;
    sha256_hex: string;
    created_at: string;
    last_used_at: string | null;
    revoked_at: string | null;
  };
  sandboxes: {
    id: string;
    account_id: string;
    state: string;
    state_reason: string | null;
    end_cause: string | null;
    incarnation_id: string | null;
    epoch: number;
    memory_mib: number;
    vcpus: number;
    ttl_seconds: number;
    created_at: string;
    expires_at: string | null;
    started_at: string | null;
    ended_at: string | null;
    metadata: string;
    env: string;
    egress: string | null;
    snapshot_id: string | null;
    /** JSON. */
    suspension: string | null;
    /** 0 or 1. */
    auto_suspend: number;
    auto_resume: number;
    snapshot_on_expiry: string | null;
  };
  snapshots: {
    id: string;
    account_id: string;
    name: string;
    status: string;
    error: string | null;
    source_incarnation_id: string | null;
    /** JSON. */
    settings: string;
    stored_bytes: number;
    created_at: string;
    last_used_at: string;
  };
};
