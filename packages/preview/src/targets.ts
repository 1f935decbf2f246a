/** What the proxy asks of the daemon: which share a host name stands for, who may open it, and a connection to its port. */
import type { Duplex } from 'node:stream';

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

export type PreviewTargets = {
  /** @returns undefined: no such share, revoked, or its sandbox is gone for good */
  find(shareId: string): Promise<PreviewTarget | undefined>;
  /** Whether an API key may open a private share. */
  mayOpen(apiKey: string, target: PreviewTarget): Promise<boolean>;
};
