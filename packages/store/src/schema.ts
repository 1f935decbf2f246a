/** The tables, as Kysely sees them. Instants are ISO-8601 UTC text, objects are JSON text. */
import type { Generated } from 'kysely';
import type { AuditTables } from './audit-tables.ts';
import type { LedgerTables } from './ledger-tables.ts';
import type { SignInTables } from './sign-in-tables.ts';

export type Tables = SignInTables &
  LedgerTables &
  AuditTables & {
    accounts: {
      id: string;
      email: string;
      name: string;
      created_at: string;
      updated_at: string | null;
      /** Invites others and may mint links that sign in. */
      is_administrator: Generated<number>;
      email_verified: Generated<number>;
      /** For pictures of sign-in providers; unused until there is one. */
      image: string | null;
    };
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
      description: string | null;
      scope: Generated<string>;
      /** Entries that the metadata of a sandbox must have to be there for this key. */
      sandbox_metadata: string | null;
      expires_at: string | null;
      /** Of the secret before the last rotation, as long as it works. */
      previous_sha256_hex: string | null;
      previous_expires_at: string | null;
    };
    /** Where an account has another one than the server's default. */
    account_quotas: { account_id: string; quota: string; amount: number };
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
      lifecycle: string;
      saved_in: string | null;
      lease_left_ms: number | null;
      snapshot_id: string | null;
      /** What `saved_in` occupies. */
      saved_bytes: number | null;
    };
    /** Every incarnation that a sandbox ever had. */
    incarnations: { id: string; sandbox_id: string };
    /** Rows of one sandbox are numbered from 1; the newest are kept. */
    egress_log: {
      sandbox_id: string;
      id: number;
      at: string;
      kind: string;
      host: string;
      port: number | null;
      address: string | null;
      allowed: number;
      rule: string;
      outcome: string;
      reason: string | null;
      bytes_sent: number;
      bytes_received: number;
      duration_ms: number | null;
      repeated: number;
    };
    /** One that is not revoked per port of a sandbox. */
    shares: {
      id: string;
      account_id: string;
      sandbox_id: string;
      port: number;
      is_public: number;
      rewrite_host: number;
      created_at: string;
      revoked_at: string | null;
    };
    /** One per account and domain, and one of all accounts that is verified or issued. */
    custom_domains: {
      id: Generated<number>;
      account_id: string;
      domain: string;
      share_id: string;
      status: string;
      /** `{code, message}` of one that failed. */
      failure: string | null;
      verification_token: string;
      dns_provider: string;
      created_at: string;
      issued_at: string | null;
    };
    /** Links to shares that were taken back, for as long as one is good. */
    revoked_links: { share_id: string; link_id: string; revoked_at: string };
    snapshots: {
      id: string;
      account_id: string;
      name: string | null;
      status: string;
      last_error: string | null;
      is_transient: number;
      sandbox_id: string;
      incarnation_id: string | null;
      files_id: string;
      spec: string;
      template_key: string | null;
      size_bytes: number | null;
      created_at: string;
      updated_at: string;
      used_at: string;
    };
  };
