/**
 * Host names and CONNECT authorities in the one form that rules, look-ups and logs use. What two programs could read differently
 * (short IPv4, percent signs, empty labels) has no form here.
 */
import { domainToASCII } from 'node:url';
import { addressText, parseAddress } from './addresses.ts';
import type { Destination } from './verdict.ts';

/** RFC 1035 2.3.4, without the last dot. */
const MAX_NAME_CHARS = 253;
/** Before the mapping of IDNA, which may shorten a name. */
const MAX_INPUT_CHARS = 255;

const NAME = /^(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}$/;
const ASCII_NAME = /^[A-Za-z0-9._-]+$/;
/** What could be in a name that has other letters too: nothing that the parser of URL hosts gives a meaning (`%`, `/`, `:`, `[`, `@`, …). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: the first character beyond ASCII is the bound
const INTERNATIONAL_NAME = /^(?:[A-Za-z0-9._-]|[^\x00-\x7f])+$/;
/** The last label makes it an IPv4 address for the C library and for URLs: `127.1`, `0x7f000001`, `2130706433`. */
const NUMERIC = /(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$/;

/**
 * Lower case, A-labels (UTS 46), no last dot. Letters, digits, `-` and `_`; `_` because service names (`_dmarc`, `_http._tcp`) are asked for.
 * @returns undefined for what is no host name, an address in whatever form included
 */
export function normalizeName(text: string): string | undefined {
  if (text.length > MAX_INPUT_CHARS) return undefined;
  const ascii = ASCII_NAME.test(text) ? text : INTERNATIONAL_NAME.test(text) ? domainToASCII(text) : '';
  const name = (ascii.endsWith('.') ? ascii.slice(0, -1) : ascii).toLowerCase();
  return name.length <= MAX_NAME_CHARS && NAME.test(name) && !NUMERIC.test(name) ? name : undefined;
}

const PORT = /^[1-9][0-9]{0,4}$/;

/** @returns 1 to 65535, written without sign and leading zeros */
export function parsePort(text: string): number | undefined {
  return PORT.test(text) && Number(text) <= 65_535 ? Number(text) : undefined;
}

/** Name or address in brackets, colon, port. */
const MAX_AUTHORITY_CHARS = MAX_INPUT_CHARS + 6;

/** Of `CONNECT` (RFC 9110 9.3.6): `host:port`, `[v6]:port` or `1.2.3.4:port`; nothing around it, the port is not optional. */
export function parseAuthority(text: string): Destination | undefined {
  if (text.length > MAX_AUTHORITY_CHARS) return undefined;
  const colon = text.lastIndexOf(':');
  const port = parsePort(text.slice(colon + 1));
  if (colon < 1 || port === undefined) return undefined;
  const host = text.slice(0, colon);
  const bracketed = host.startsWith('[') && host.endsWith(']');
  const address = parseAddress(bracketed ? host.slice(1, -1) : host);
  if (address) {
    // Brackets belong around IPv6, and only there.
    return bracketed === (address.kind() === 'ipv6')
      ? { host: addressText(address), isAddress: true, port }
      : undefined;
  }
  const name = normalizeName(host);
  return name === undefined ? undefined : { host: name, isAddress: false, port };
}
