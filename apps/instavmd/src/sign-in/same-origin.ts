/**
 * Which requests of a browser come from our own pages. A cookie goes along with whatever page asks, so it says who asks, never
 * what was meant; it counts only in requests that no page of another origin can make:
 *
 * - with a header of ours, which a page of another origin may not send, since we answer no CORS preflight;
 * - from the origin that the request itself is addressed to (`Origin`, `Sec-Fetch-Site`, where the browser sends them);
 * - to a host name that is this server's, so that a name which an attacker points here (DNS rebinding) is none.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import { InstaVMError } from '@instavm/wire';

export const OWN_HEADER = 'x-instavm-csrf';

/** @throws cross_origin */
export function requireOwnPage(headers: IncomingHttpHeaders, publicUrl: URL | undefined): void {
  const reason = foreignReason(headers, publicUrl);
  if (reason !== undefined) throw new InstaVMError('cross_origin', reason);
}

function foreignReason(headers: IncomingHttpHeaders, publicUrl: URL | undefined): string | undefined {
  if (headers[OWN_HEADER] === undefined) return `requests of a signed-in browser carry the header ${OWN_HEADER}`;
  const own = ownOrigin(headers, publicUrl);
  if (own === undefined) return 'the server is not known under this host name';
  if (headers.origin !== undefined && headers.origin !== own) return 'the request comes from another origin';
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin') return 'the request comes from another site';
  return undefined;
}

/** Where the browser that asks reaches this server. @returns undefined when it asks under a name that is not ours */
export function ownOrigin(headers: IncomingHttpHeaders, publicUrl: URL | undefined): string | undefined {
  if (publicUrl !== undefined) return headers.host === publicUrl.host ? publicUrl.origin : undefined;
  const url = URL.parse(`http://${headers.host ?? ''}`);
  if (url === null || url.host !== headers.host) return undefined;
  const name = url.hostname.replace(/^\[|\]$/g, '');
  return name === 'localhost' || isIP(name) !== 0 ? url.origin : undefined;
}
