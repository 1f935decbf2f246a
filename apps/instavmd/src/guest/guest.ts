/** Core's guest port over the agent client. */
import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { AgentClient } from '@instavm/agent-client';
import type { GuestConnector, GuestIdentity, GuestLink } from '@instavm/core';
import { guestInterceptors } from '../operations/tracing.ts';
import { askGuest } from './errors.ts';
import { OutputBudget } from './output-budget.ts';
import { runToEnd } from './run.ts';

const ENTROPY_BYTES = 64;
/** A program that accepts nothing for so long is busy with something else. */
const CONNECT_PORT_MS = 10_000;

/** Whose the output of a rehearsal is. */
const NOBODY = '';

export class Guest implements GuestLink {
  readonly agent: AgentClient;
  readonly closed: Promise<void>;

  constructor(agent: AgentClient) {
    this.agent = agent;
    this.closed = agent.closed;
  }

  async personalize(identity: GuestIdentity, deadlineMs: number): Promise<void> {
    const request = {
      unixTimeNs: BigInt(Date.now()) * 1_000_000n,
      entropy: randomBytes(ENTROPY_BYTES),
      hostname: identity.hostname,
      machineId: identity.machineIdHex,
      env: { ...identity.env },
    };
    await askGuest(() => this.agent.lifecycle.personalize(request, { timeoutMs: deadlineMs }));
  }

  async ping(deadlineMs: number): Promise<void> {
    await askGuest(() => this.agent.lifecycle.ping({}, { timeoutMs: deadlineMs }));
  }

  async rehearse(deadlineMs: number): Promise<void> {
    const command = { language: 'bash', command: 'true', timeoutMs: deadlineMs, answerWithinMs: deadlineMs } as const;
    const budget = new OutputBudget(NOBODY);
    try {
      await runToEnd(this, command, budget);
    } finally {
      budget.release();
    }
  }

  /** @throws guest_unresponsive after `deadlineMs` */
  stats(deadlineMs: number) {
    return askGuest(() => this.agent.lifecycle.stats({}, { timeoutMs: deadlineMs }));
  }

  /** @throws port_not_listening, rate_limited, guest_unresponsive, guest_lost */
  connectPort(port: number, signal: AbortSignal): Promise<Duplex> {
    return askGuest(() => this.agent.tunnel(port, { signal, deadlineMs: CONNECT_PORT_MS }));
  }

  async sync(deadlineMs: number): Promise<void> {
    await askGuest(() => this.agent.lifecycle.sync({}, { timeoutMs: deadlineMs }));
  }

  close(): void {
    this.agent.close();
  }
}

export const guestConnector: GuestConnector<Guest> = {
  attach: (stream, deadlineMs) =>
    askGuest(async () => new Guest(await AgentClient.open(stream, deadlineMs, guestInterceptors))),
};
