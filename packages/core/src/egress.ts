/** The egress port: what the lifecycle asks of the gateway between a guest and the outside. Implemented by `@instavm/egress`. */
import type { Duplex } from 'node:stream';
import type { SandboxId } from './ids.ts';
import type { EgressPolicy } from './sandbox.ts';

export interface EgressGateway {
  /** What a sandbox gets for which nobody sent a policy. */
  readonly defaultPolicy: EgressPolicy;

  /**
   * Serves the egress channel of one incarnation until it is closed: opens it, and again with growing pauses whenever it drops.
   * @param connect opens the byte stream; nothing has been said on it yet
   * @returns at once; what the guest asks meanwhile is refused
   */
  serve(sandboxId: SandboxId, policy: EgressPolicy | null, connect: () => Promise<Duplex>): EgressLink;
}

export interface EgressLink {
  /** Resolves when the guest's network works, or after `deadlineMs` when the guest does not take part. Never rejects. */
  ready(deadlineMs: number): Promise<void>;
  /** Holds from now on; connections that it forbids are cut. Null: the default. */
  setPolicy(policy: EgressPolicy | null): void;
  /** The channel was dropped by us, or is about to be: no reason to be slow in opening it again. */
  forgive(): void;
  /** Cuts everything. The guest's programs see their connections reset. */
  close(): void;
}
