/** The outside as one sandbox may see it: its present policy over what the daemon was told about the network. */
import { networkInterfaces } from 'node:os';
import type { EgressPolicy } from '@instavm/core';
import { addressText, parseAddress, unmapped } from '../policy/addresses.ts';
import { CidrSet, parseCidrRule } from '../policy/cidrs.ts';
import { type CompiledPolicy, compilePolicy, type NameVerdict } from '../policy/policy.ts';
import type { Verdict } from '../policy/verdict.ts';
import { Bandwidth } from './bandwidth.ts';
import type { Resolver } from './resolver.ts';

export type NetworkOptions = {
  readonly resolver: Resolver;
  /** Domain rules that `allow_public_repos` stands for. */
  readonly registries: readonly string[];
  /** Address ranges that count as public, whatever they are. */
  readonly siteCidrs: readonly string[];
  /** `http://[user:password@]host[:port]`: connections are made through it. */
  readonly proxy: URL | undefined;
  /** Open at once in one sandbox. */
  readonly maxConnections: number;
  /** Of one sandbox, both directions together; Infinity: no limit. */
  readonly bytesPerSecond: number;
};

export class Network {
  readonly resolver: Resolver;
  readonly proxy: URL | undefined;
  readonly maxConnections: number;
  readonly bandwidth: Bandwidth;
  readonly #registries: readonly string[];
  readonly #site: CidrSet;
  #policy: CompiledPolicy;

  constructor(options: NetworkOptions, policy: EgressPolicy) {
    this.resolver = options.resolver;
    this.proxy = options.proxy;
    this.maxConnections = options.maxConnections;
    this.bandwidth = new Bandwidth(options.bytesPerSecond);
    this.#registries = options.registries;
    this.#site = new CidrSet(options.siteCidrs.flatMap((cidr) => parseCidrRule(cidr) ?? []));
    this.#policy = compilePolicy(policy, this.#registries, this.#site);
  }

  get policy(): CompiledPolicy {
    return this.#policy;
  }

  setPolicy(policy: EgressPolicy): void {
    this.#policy = compilePolicy(policy, this.#registries, this.#site);
  }

  /**
   * The last word about an address that is about to be dialled. One of this host's own is denied like a private one, public as it may be: what
   * listens here, the daemon first of all, would take the gateway for a neighbour.
   */
  decide(address: string, port: number, byName: NameVerdict | undefined): Verdict {
    const verdict = this.#policy.decideAddress(address, port, byName);
    if (!verdict.allowed || verdict.rule.startsWith('allowed_cidrs:') || !isOwn(address)) return verdict;
    const parsed = parseAddress(address);
    if (parsed !== undefined && this.#site.match(parsed) !== undefined) return verdict;
    const reason = `${address} is an address of the host itself: add it to allowed_cidrs to reach it`;
    return { allowed: false, rule: 'special_address:host', reason };
  }
}

/** Interfaces come and go, so they are looked at again, but not for every connection. */
const OWN_MAX_AGE_MS = 5_000;
let own: { readonly addresses: ReadonlySet<string>; readonly readAt: number } | undefined;

function isOwn(address: string): boolean {
  const now = performance.now();
  if (own === undefined || now - own.readAt > OWN_MAX_AGE_MS) own = { addresses: ownAddresses(), readAt: now };
  return own.addresses.has(canonical(address));
}

const ownAddresses = (): Set<string> =>
  new Set(Object.values(networkInterfaces()).flatMap((each) => (each ?? []).map(({ address }) => canonical(address))));

function canonical(text: string): string {
  const address = parseAddress(text);
  return address === undefined ? text : addressText(unmapped(address));
}
