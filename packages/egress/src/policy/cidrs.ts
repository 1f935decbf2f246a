/** `allowed_cidrs`, compiled: address ranges without ports. */
import ipaddr from 'ipaddr.js';
import { type Address, parseAddress, unmapped } from './addresses.ts';

export type CidrRule = {
  /** As it was given, without surrounding spaces. */
  readonly text: string;
  readonly kind: 'ipv4' | 'ipv6';
  /** First and last address of the range, see `sortKey`. */
  readonly first: string;
  readonly last: string;
};

const PREFIX_LENGTH = /^(?:0|[1-9][0-9]{0,2})$/;
const MAPPED_PREFIX_LENGTH = 96;

/**
 * `10.0.0.0/8`, `2001:db8::/32`, or a bare address, which is itself alone. Bits behind the prefix are ignored. A range inside `::ffff:0:0/96`
 * is the IPv4 range that it stands for.
 */
export function parseCidrRule(input: string): CidrRule | undefined {
  const text = input.trim();
  const slash = text.indexOf('/');
  const given = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (!given) return undefined;
  const bits = given instanceof ipaddr.IPv6 ? 128 : 32;
  const prefixText = slash < 0 ? String(bits) : text.slice(slash + 1);
  if (!PREFIX_LENGTH.test(prefixText) || Number(prefixText) > bits) return undefined;

  const prefix = Number(prefixText);
  const inner = prefix >= MAPPED_PREFIX_LENGTH ? unmapped(given) : given;
  const isIpv4 = inner instanceof ipaddr.IPv4;
  return rangeOf(text, inner, isIpv4 && bits === 128 ? prefix - MAPPED_PREFIX_LENGTH : prefix);
}

function rangeOf(text: string, address: Address, prefix: number): CidrRule {
  const bytes = address.toByteArray();
  const hostMask = bytes.map((_, index) => 0xff >> Math.min(Math.max(prefix - index * 8, 0), 8));
  return {
    text,
    kind: address.kind(),
    first: sortKey(bytes.map((byte, index) => byte & ~(hostMask[index] ?? 0))),
    last: sortKey(bytes.map((byte, index) => byte | (hostMask[index] ?? 0))),
  };
}

/** One character a byte: keys of one family compare as the addresses do. */
const sortKey = (bytes: readonly number[]): string => String.fromCharCode(...bytes);

/** Answers in the logarithm of the number of rules. */
export class CidrSet {
  readonly size: number;
  readonly #ranges: Readonly<Record<CidrRule['kind'], readonly CidrRule[]>>;

  constructor(rules: readonly CidrRule[]) {
    this.size = rules.length;
    this.#ranges = {
      ipv4: disjoint(rules.filter(({ kind }) => kind === 'ipv4')),
      ipv6: disjoint(rules.filter(({ kind }) => kind === 'ipv6')),
    };
  }

  /** What is no range is left out. */
  static of(texts: readonly string[]): CidrSet {
    return new CidrSet(texts.flatMap((text) => parseCidrRule(text) ?? []));
  }

  /**
   * @param address an IPv4-mapped one is looked up as its IPv4 address
   * @returns the text of the widest rule that has it
   */
  match(address: string | Address): string | undefined {
    const parsed = typeof address === 'string' ? parseAddress(address) : address;
    if (!parsed) return undefined;
    const target = unmapped(parsed);
    const ranges = this.#ranges[target.kind()];
    if (ranges.length === 0) return undefined;
    const key = sortKey(target.toByteArray());
    const candidate = ranges[countUpTo(ranges, key) - 1];
    return candidate && key <= candidate.last ? candidate.text : undefined;
  }
}

/** In order of their addresses, without those that lie in another one. Two ranges never overlap otherwise. */
function disjoint(rules: readonly CidrRule[]): CidrRule[] {
  const sorted = rules.toSorted((a, b) => compare(a.first, b.first) || compare(b.last, a.last));
  const kept: CidrRule[] = [];
  for (const rule of sorted) {
    const previous = kept.at(-1);
    if (!previous || rule.first > previous.last) kept.push(rule);
  }
  return kept;
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** @returns how many of the ranges begin at or before `key` */
function countUpTo(ranges: readonly CidrRule[], key: string): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const range = ranges[middle];
    if (range && range.first <= key) low = middle + 1;
    else high = middle;
  }
  return low;
}
