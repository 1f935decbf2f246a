/**
 * The guest port: what the lifecycle asks of the program inside a microVM. Implemented over `@instavm/agent-client` by
 * the daemon; every answer comes from a hostile guest and is already parsed and bounded.
 */
import type { Duplex } from 'node:stream';

export type GuestIdentity = {
  readonly hostname: string;
  /** 32 hex digits. */
  readonly machineIdHex: string;
  readonly env: Readonly<Record<string, string>>;
};

export interface GuestConnector<Guest extends GuestLink> {
  /** Performs the SYNC handshake and starts HTTP/2. @throws guest_unresponsive after `deadlineMs` */
  attach(stream: Duplex, deadlineMs: number): Promise<Guest>;
}

export interface GuestLink {
  /** Clock, entropy, hostname, machine-id, environment; the first call after a restore, and proof of readiness. May be repeated. */
  personalize(identity: GuestIdentity, deadlineMs: number): Promise<void>;
  /** @throws guest_unresponsive after `deadlineMs` */
  ping(deadlineMs: number): Promise<void>;
  /** Runs what a first command will run, so that the time which that takes in a new microVM is over. */
  rehearse(deadlineMs: number): Promise<void>;
  /** Flushes the filesystems, so that what is taken of the disk afterwards is complete. @throws guest_unresponsive after `deadlineMs` */
  sync(deadlineMs: number): Promise<void>;
  /** Settles when the channel is lost or closed. Never rejects. */
  readonly closed: Promise<void>;
  close(): void;
}
