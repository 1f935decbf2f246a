/** Reads where a request wants to go, and refuses what two readers could understand differently. */
import { InstaVMError } from '@instavm/wire';
import { type Incoming, isHttp2 } from './exchange.ts';
import { type Field, fieldsOf, valuesOf } from './headers.ts';
import { hostNameOf, shareOfHost } from './hosts.ts';

const MAX_TARGET_CHARS = 16 * 1024;
const TARGET = /^\/[\x21-\x7e]*$/;

/** Whose the host is: a share's by its form, or that of a custom domain, should there be one of that name. */
export type Place =
  | { readonly kind: 'share'; readonly shareId: string }
  | { readonly kind: 'domain'; readonly domain: string };

export type Parsed = {
  readonly place: Place;
  /** Host name and port, as the visitor wrote them. */
  readonly authority: string;
  readonly hostName: string;
  /** Path and query. */
  readonly target: string;
  readonly fields: readonly Field[];
  readonly clientAddress: string;
  /** A WebSocket over HTTP/2 (RFC 8441). */
  readonly isExtendedConnect: boolean;
};

/** @throws malformed_request, url_too_long, misdirected_request, share_not_found */
export function parseRequest(request: Incoming, domain: string): Parsed {
  const fields = fieldsOf(request.rawHeaders);
  const isExtendedConnect = isHttp2(request) && request.headers[':protocol'] === 'websocket';
  if (request.method === 'CONNECT' && !isExtendedConnect) {
    throw malformed('This is no forward proxy: CONNECT is not answered.');
  }
  const target = request.url ?? '';
  if (target.length > MAX_TARGET_CHARS) {
    throw new InstaVMError('url_too_long', `The URL has more than ${MAX_TARGET_CHARS} characters.`);
  }
  if (!TARGET.test(target)) throw malformed('The request target must be a path of printable ASCII characters.');
  if (!isHttp2(request)) refuseAmbiguousFraming(fields);

  const authority = authorityOf(request, fields);
  const hostName = hostNameOf(authority);
  if (hostName === undefined) throw malformed('The Host header names no host.');
  const place = placeOf(hostName, domain, (request.socket as { servername?: string | false }).servername);

  const clientAddress = (request.socket.remoteAddress ?? 'unknown').replace(/^::ffff:/, '');
  return { place, authority, hostName, target, fields, clientAddress, isExtendedConnect };
}

/** RFC 9110 §7.4: a connection made for one host does not carry requests for another. */
function placeOf(hostName: string, domain: string, serverName: string | false | undefined): Place {
  if (typeof serverName === 'string' && serverName.toLowerCase() !== hostName) throw misdirected();
  const share = shareOfHost(hostName, domain);
  if (share?.id !== undefined) return { kind: 'share', shareId: share.id };
  if (share) throw new InstaVMError('share_not_found', 'No share has this address.');
  // Without a server name the visitor was shown a certificate that says nothing about this host.
  if (typeof serverName !== 'string') throw misdirected();
  return { kind: 'domain', domain: hostName };
}

export const misdirected = (): InstaVMError =>
  new InstaVMError('misdirected_request', 'This connection is not for the host that the request names.');

/** RFC 9112 §6.3 and §11.2: one length, or one `chunked`, and never both. */
function refuseAmbiguousFraming(fields: readonly Field[]): void {
  const lengths = valuesOf(fields, 'content-length');
  const codings = valuesOf(fields, 'transfer-encoding');
  if (lengths.length + codings.length > 1) throw malformed('The length of the body is given more than once.');
  if (lengths.some((length) => !/^\d{1,15}$/.test(length))) throw malformed('Content-Length is no number.');
  if (codings.some((coding) => coding.toLowerCase() !== 'chunked')) {
    throw malformed('Transfer-Encoding may only be chunked.');
  }
}

function authorityOf(request: Incoming, fields: readonly Field[]): string {
  const hosts = valuesOf(fields, 'host');
  const pseudo = isHttp2(request) ? request.headers[':authority'] : undefined;
  const all = typeof pseudo === 'string' ? [pseudo, ...hosts] : hosts;
  const [authority] = all;
  if (authority === undefined || hosts.length > 1) throw malformed('Exactly one Host header is needed.');
  if (all.some((other) => other !== authority)) throw malformed('The Host header and :authority differ.');
  return authority;
}

const malformed = (message: string): InstaVMError => new InstaVMError('malformed_request', message);
