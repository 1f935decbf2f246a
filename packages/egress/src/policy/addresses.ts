/**
 * IP addresses: their one strict text form, and which of them are not public. What is not public is reached only by a rule of
 * `allowed_cidrs`, because it lies in the host's own network, or stands for an address that does.
 */
import { isIPv4, isIPv6 } from 'node:net';
import ipaddr from 'ipaddr.js';

export type Address = ipaddr.IPv4 | ipaddr.IPv6;

/** The longest is IPv6 with a dotted IPv4 tail. */
const MAX_ADDRESS_CHARS = 45;

/** IPv4 as four decimal octets without leading zeros; IPv6 without brackets and zone. ipaddr.js alone would take octal, hex and short forms. */
export function parseAddress(text: string): Address | undefined {
  if (text.length > MAX_ADDRESS_CHARS) return undefined;
  if (isIPv4(text)) return ipaddr.IPv4.parse(text);
  if (isIPv6(text) && !text.includes('%')) return ipaddr.IPv6.parse(withoutDottedTail(text));
  return undefined;
}

/** ipaddr.js reads `::1.2.3.4` as `::ffff:1.2.3.4`; the kernel does not. */
function withoutDottedTail(text: string): string {
  if (!text.includes('.')) return text;
  const colon = text.lastIndexOf(':');
  const [a = 0, b = 0, c = 0, d = 0] = text
    .slice(colon + 1)
    .split('.')
    .map(Number);
  return `${text.slice(0, colon)}:${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
}

/** RFC 5952 for IPv6, without a dotted tail. */
export const addressText = (address: Address): string =>
  address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address.toString();

/** An IPv4-mapped address (`::ffff:0:0/96`) as the IPv4 address that the host's kernel would dial; others as they are. */
export const unmapped = (address: Address): Address =>
  address instanceof ipaddr.IPv6 && address.isIPv4MappedAddress() ? address.toIPv4Address() : address;

/** Where clouds answer with credentials. The third is an ordinary public address by its number. */
const METADATA_ADDRESSES: ReadonlySet<string> = new Set([
  '169.254.169.254', // AWS, Google, Azure, and most others
  '169.254.170.2', // AWS, credentials of containers
  '168.63.129.16', // Azure, the wire server
  '100.100.100.200', // Alibaba
  '192.0.0.192', // Oracle
  'fd00:ec2::254', // AWS
  'fd00:ec2::23', // AWS, credentials of pods
  'fd20:ce::254', // Google
]);

/** Ranges that ipaddr.js knows (the special-purpose registries of IANA), as our rule ids name them. Its types do not list all of them. */
const RANGE_NAMES: Readonly<Record<string, string>> = {
  unspecified: 'unspecified',
  broadcast: 'broadcast',
  multicast: 'multicast',
  linkLocal: 'link_local',
  loopback: 'loopback',
  carrierGradeNat: 'carrier_grade_nat',
  private: 'private',
  reserved: 'reserved',
  as112: 'reserved',
  as112v6: 'reserved',
  amt: 'reserved',
  benchmarking: 'reserved',
  discard: 'reserved',
  deprecatedOrchid: 'reserved',
  orchid2: 'reserved',
  droneRemoteIdProtocolEntityTags: 'reserved',
  segmentRouting: 'reserved',
  uniqueLocal: 'unique_local',
  deprecatedSiteLocal: 'site_local',
  ipv4Mapped: 'ipv4_mapped',
  rfc6145: 'ipv4_translated',
  rfc6052: 'nat64',
  '6to4': '6to4',
  teredo: 'teredo',
};

/** Every name that `specialRange` answers. */
export const SPECIAL_RANGES: readonly string[] = [
  ...new Set([...Object.values(RANGE_NAMES), 'metadata', 'ipv4_compatible', 'invalid']),
];

/** RFC 4291 2.5.5.1; ipaddr.js has no name for it. */
const IPV4_COMPATIBLE = ipaddr.IPv6.parseCIDR('::/96');
/** The only block that IANA gives global unicast addresses from. What lies outside is for nobody yet. */
const GLOBAL_UNICAST = ipaddr.IPv6.parseCIDR('2000::/3');

/** @returns why the address is not public, or undefined for a public one. Those that embed an IPv4 address are never public. */
export function specialRange(address: string | Address): string | undefined {
  const parsed = typeof address === 'string' ? parseAddress(address) : address;
  if (!parsed) return 'invalid';
  if (METADATA_ADDRESSES.has(addressText(parsed))) return 'metadata';
  const range = parsed.range();
  if (range !== 'unicast') return RANGE_NAMES[range] ?? 'reserved';
  if (parsed instanceof ipaddr.IPv4) return undefined;
  if (parsed.match(IPV4_COMPATIBLE)) return 'ipv4_compatible';
  return parsed.match(GLOBAL_UNICAST) ? undefined : 'reserved';
}
