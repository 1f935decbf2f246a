/** What the proxy asks of the daemon: which share a host name stands for, who may open it, and a connection to its port. */
import type { Duplex } from 'node:stream';
import type { LinkId } from '@instavm/core';

export type PreviewTarget = {
  readonly shareId: string;
  readonly sandboxId: string;
  readonly port: number;
  readonly isPublic: boolean;
  /** Host and port that the service is told it is, for one that answers to no other name; undefined: what the visitor wrote. */
  readonly serviceAuthority?: string | undefined;
  /**
   * Wakes the sandbox if need be and connects to the port.
   * @throws InstaVMError: port_not_listening, sandbox_suspended, invalid_state, lease_expired, guest_lost, …
   */
  connect(signal: AbortSignal): Promise<Duplex>;
};

/** Calls `end` when the key is no longer valid. @returns to be called when what it opened is over */
export type KeyHold = (end: () => void) => () => void;

export type PreviewTargets = {
  /** @returns undefined: no such share, revoked, or its sandbox is gone for good */
  find(shareId: string): Promise<PreviewTarget | undefined>;
  /** The share that a verified custom domain stands for. @param host in lower case, without a port. @returns undefined: nobody's domain. @throws share_not_found where `find` has none */
  findDomain(host: string): Promise<PreviewTarget | undefined>;
  isLinkRevoked(shareId: string, linkId: LinkId): Promise<boolean>;
  /** Whether an API key may open a private share: what keeps it to that. @returns undefined when it may not */
  mayOpen(apiKey: string, target: PreviewTarget): Promise<KeyHold | undefined>;
};
