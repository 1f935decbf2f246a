/** The gateway between guests and the outside: one link for each incarnation, and answers to "what would happen" without connecting. */
import type { Duplex } from 'node:stream';
import type { EgressGateway, EgressLink, EgressPolicy, EgressRecord, LifecycleLog, SandboxId } from '@instavm/core';
import type { Destination, Verdict } from '../policy/verdict.ts';
import { findAddresses, type Judged, judge } from './connect.ts';
import { GatewayLink } from './link.ts';
import { Network, type NetworkOptions, Policies } from './network.ts';

export type GatewayOptions = NetworkOptions & {
  readonly defaultPolicy: EgressPolicy;
  /** Called for every connection when it opens and when it ends, for every denial, and for nothing else. Must not throw. */
  readonly record: (sandboxId: SandboxId, record: EgressRecord) => void;
  /** Called for bytes of a guest that have left, as they do. Must not throw. */
  readonly sent: (sandboxId: SandboxId, bytes: number) => void;
  /** Called for bytes that have come for a guest, as they do. Must not throw. */
  readonly received: (sandboxId: SandboxId, bytes: number) => void;
  readonly log: LifecycleLog;
};

/** What a connection would meet. */
export type Explanation = {
  readonly verdict: Verdict;
  /** Empty when the name decided already, or has no address. */
  readonly addresses: readonly Judged[];
};

export class Gateway implements EgressGateway {
  readonly defaultPolicy: EgressPolicy;
  readonly #options: GatewayOptions;
  readonly #policies: Policies;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#policies = new Policies(options);
    this.defaultPolicy = options.defaultPolicy;
  }

  serve(sandboxId: SandboxId, policy: EgressPolicy | null, connect: () => Promise<Duplex>): EgressLink {
    const { record, sent, received, log } = this.#options;
    const network = new Network(this.#options, this.#policies, policy ?? this.defaultPolicy);
    const link = new GatewayLink({
      ...{ sandboxId, network, connect, log },
      record: (each) => record(sandboxId, each),
      sent: (bytes) => sent(sandboxId, bytes),
      received: (bytes) => received(sandboxId, bytes),
    });
    return {
      ready: (deadlineMs) => link.ready(deadlineMs),
      setPolicy: (changed) => link.setPolicy(changed ?? this.defaultPolicy),
      forgive: () => link.forgive(),
      close: () => link.close(),
    };
  }

  /** Decides as for a guest, with a look-up if the policy allows one, and connects to nothing. */
  async explain(policy: EgressPolicy | null, destination: Destination): Promise<Explanation> {
    const network = new Network(this.#options, this.#policies, policy ?? this.defaultPolicy);
    const { host, isAddress, port } = destination;
    const byName = isAddress ? undefined : network.policy.decideName(host, port);
    if (byName?.allowed === false) return { verdict: byName, addresses: [] };
    const { allowed, denied } = judge(network, await findAddresses(network, destination), destination);
    const verdict = allowed[0]?.verdict ?? denied[0]?.verdict ?? nowhere(host, byName);
    return { verdict, addresses: [...allowed, ...denied] };
  }
}

/** A name without an address: allowed or not, it leads nowhere. */
function nowhere(
  host: string,
  byName: { allowed: true; rule: string } | { allowed: 'by-address' } | undefined,
): Verdict {
  if (byName?.allowed === true) return byName;
  return {
    allowed: false,
    rule: 'default_deny',
    reason: `${host} has no address that a rule of allowed_cidrs could allow`,
  };
}
