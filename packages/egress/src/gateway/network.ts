/** The outside as one sandbox may see it: its present policy over what the daemon was told about the network. */
import { networkInterfaces } from 'node:os';
import type { EgressPolicy } from '@instavm/core';
import { addressText, parseAddress, specialRange, unmapped } from '../policy/addresses.ts';
import { CidrSet } from '../policy/cidrs.ts';
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
  /** Address ranges that no policy may reach. */
  readonly forbiddenCidrs: readonly string[];
  /** `http://[user:password@]host[:port]`: connections are made through it. */
  readonly proxy: URL | undefined;
  /** Open at once in one sandbox. */
  readonly maxConnections: number;
  /** Of one sandbox, both directions together; Infinity: no limit. */
  readonly bytesPerSecond: number;
};

/** Policies of one gateway, each compiled once for as long as somebody holds it: ten thousand rules take long. */
export class Policies {
  readonly site: CidrSet;
  readonly #registries: readonly string[];
  readonly #compiled = new WeakMap<EgressPolicy, CompiledPolicy>();

  constructor({ registries, siteCidrs }: NetworkOptions) {
    this.site = CidrSet.of(siteCidrs);
    this.#registries = registries;
  }

  compiled(policy: EgressPolicy): CompiledPolicy {
    const known = this.#compiled.get(policy) ?? compilePolicy(policy, this.#registries, this.site);
    this.#compiled.set(policy, known);
    return known;
  }
}

export class Network {
  readonly resolver: Resolver;
  readonly proxy: URL | undefined;
  readonly maxConnections: number;
  readonly bandwidth: Bandwidth;
  readonly #policies: Policies;
  readonly #forbidden: CidrSet;
  #policy: CompiledPolicy;

  constructor(options: NetworkOptions, policies: Policies, policy: EgressPolicy) {
    this.resolver = options.resolver;
    this.proxy = options.proxy;
    this.maxConnections = options.maxConnections;
    this.bandwidth = new Bandwidth(options.bytesPerSecond);
    this.#policies = policies;
    this.#forbidden = CidrSet.of(options.forbiddenCidrs);
    this.#policy = policies.compiled(policy);
  }

  get policy(): CompiledPolicy {
    return this.#policy;
  }

  setPolicy(policy: EgressPolicy): void {
    this.#policy = this.#policies.compiled(policy);
  }

  /**
   * The last word about an address that is about to be dialled. The host's own addresses, its loopback and its cloud's metadata are no policy's to
   * give: whoever may write a policy would reach what listens here, the daemon first of all. Only the operator can.
   */
  decide(address: string, port: number, byName: NameVerdict | undefined): Verdict {
    const parsed = parseAddress(address);
    if (parsed !== undefined && this.#forbidden.match(parsed) !== undefined)
      return {
        allowed: false,
        rule: 'forbidden_by_operator',
        reason: `the operator of this server forbids ${address}`,
      };
    const verdict = this.#policy.decideAddress(address, port, byName);
    if (!verdict.allowed || (parsed !== undefined && this.#policies.site.match(parsed) !== undefined)) return verdict;
    const range = isOwn(address) ? 'host' : parsed && specialRange(unmapped(parsed));
    if (range === undefined || !OPERATORS_RANGES.has(range)) return verdict;
    const reason = `${address} belongs to the host (${range}): only its operator can allow it, with INSTAVM_EGRESS_SITE_CIDRS`;
    return { allowed: false, rule: `special_address:${range}`, reason };
  }
}

const OPERATORS_RANGES: ReadonlySet<string> = new Set(['host', 'loopback', 'metadata', 'link_local', 'unspecified']);

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
