/**
 * What of a message's header fields passes, in each direction (pure). Fields of one connection end here (RFC 9110 §7.6.1, RFC 9113 §8.2.2); what
 * says who is visiting is ours to write; and what opens a preview never reaches the guest, nor can the guest set it.
 */

export const COOKIE_NAME = '__Host-instavm_preview';
export const TOKEN_HEADER = 'x-instavm-token';
/** Says on every page of ours which one it is; a guest's own never passes. */
export const CODE_HEADER = 'instavm-preview';
const API_KEY = /^(bearer\s+)?instavm_sk_/i;

/** Name and value, in the order in which they arrived; names as they were written. */
export type Field = readonly [name: string, value: string];

const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authentication-info',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]);
/** Written anew by us, so that a service may believe them. */
const OURS = /^(x-forwarded-.*|forwarded|x-real-ip|x-instavm-.*|instavm-preview)$/;
/** Framing, routing and credentials have no place in a trailer (RFC 9110 §6.5.1). */
const NOT_IN_TRAILERS = new Set([
  'authorization',
  'content-encoding',
  'content-length',
  'content-range',
  'content-type',
  'cookie',
  'expect',
  'host',
  'set-cookie',
  'trailer',
]);

/** @param raw alternating names and values, as Node has them */
export function fieldsOf(raw: readonly string[]): Field[] {
  const fields: Field[] = [];
  for (let index = 0; index + 1 < raw.length; index += 2) fields.push([raw[index] ?? '', raw[index + 1] ?? '']);
  return fields;
}

/** By lower-case name, as Node takes them. */
export function collected(fields: readonly Field[]): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of fields) {
    const lower = name.toLowerCase();
    const earlier = headers[lower];
    headers[lower] = earlier === undefined ? value : [earlier, value].flat();
  }
  return headers;
}

export const valuesOf = (fields: readonly Field[], name: string): string[] =>
  fields.filter(([field]) => field.toLowerCase() === name).map(([, value]) => value);

function withoutHopByHop(fields: readonly Field[]): Field[] {
  const named = new Set(
    valuesOf(fields, 'connection').flatMap((value) => value.split(',').map((option) => option.trim().toLowerCase())),
  );
  // `Connection: host` and the like would drop what the other side needs, or what we are about to write.
  for (const kept of ['host', 'content-length', 'cookie', 'authorization']) named.delete(kept);
  return fields.filter(([name]) => {
    const lower = name.toLowerCase();
    return !lower.startsWith(':') && !HOP_BY_HOP.has(lower) && !named.has(lower);
  });
}

export type Visit = {
  readonly clientAddress: string;
  /** What the visitor called us: host name and port. */
  readonly authority: string;
  readonly hostName: string;
  /** What the service is told instead. */
  readonly serviceAuthority?: string | undefined;
  readonly httpVersion: string;
};

/** Fields for the guest. The framing is the caller's to add. */
export function requestFields(received: readonly Field[], visit: Visit): Field[] {
  const passed = withoutHopByHop(received).filter(([name, value]) => {
    // CGI and WSGI cannot tell `X_Forwarded_For` from `X-Forwarded-For`.
    const lower = name.toLowerCase().replaceAll('_', '-');
    if (
      HOP_BY_HOP.has(lower) ||
      OURS.test(lower) ||
      lower === 'host' ||
      lower === 'cookie' ||
      lower === 'content-length'
    )
      return false;
    return !((lower === 'authorization' || lower === 'x-api-key') && API_KEY.test(value.trim()));
  });
  const { serviceAuthority } = visit;
  const host = serviceAuthority ?? visit.authority;
  // A service compares the two to know its own pages.
  const named = passed.map(([name, value]): Field => {
    const isOwnOrigin =
      name.toLowerCase() === 'origin' && value.toLowerCase() === `https://${visit.authority}`.toLowerCase();
    return isOwnOrigin && serviceAuthority !== undefined ? [name, `http://${serviceAuthority}`] : [name, value];
  });
  // HTTP/2 may send one field per cookie; HTTP/1.1 has one field (RFC 9113 §8.2.3).
  const cookies = cookiesWithoutOurs(valuesOf(received, 'cookie'));
  const address = visit.clientAddress.includes(':') ? `"[${visit.clientAddress}]"` : visit.clientAddress;
  return [
    ['Host', host],
    ...named,
    ...(cookies === '' ? [] : [['Cookie', cookies] as const]),
    ['X-Forwarded-For', visit.clientAddress],
    ['X-Forwarded-Proto', 'https'],
    ['X-Forwarded-Host', visit.authority],
    ['Forwarded', `for=${address};host="${visit.authority}";proto=https`],
    ['Via', `${visit.httpVersion} instavm`],
  ];
}

/** Fields of the guest's answer that the visitor sees. */
export function responseFields(received: readonly Field[], visit: Visit): Field[] {
  return withoutHopByHop(received).flatMap(([name, value]): Field[] => {
    const lower = name.toLowerCase();
    if (lower === CODE_HEADER || lower === 'alt-svc') return []; // which servers speak for this host is not the guest's to say
    if (lower === 'location') return [[name, visitorLocation(value, visit)]];
    if (lower !== 'set-cookie') return [[name, value]];
    const cookie = guestCookie(value, visit.hostName);
    return cookie === undefined ? [] : [[name, cookie]];
  });
}

/** Where a service leads that took the name it was told for its own. */
function visitorLocation(value: string, { authority, serviceAuthority }: Visit): string {
  if (serviceAuthority === undefined) return value;
  const [origin = '', scheme = '', host = ''] = /^(https?):\/\/([^/?#]*)/i.exec(value) ?? [];
  const isOwn = scheme !== '' && host.toLowerCase() === serviceAuthority.toLowerCase();
  return isOwn ? `https://${authority}${value.slice(origin.length)}` : value;
}

export function trailerFields(raw: readonly string[]): [string, string][] {
  return withoutHopByHop(fieldsOf(raw))
    .filter(([name]) => !NOT_IN_TRAILERS.has(name.toLowerCase()) && !OURS.test(name.toLowerCase()))
    .map(([name, value]) => [name, value]);
}

/** Values of our cookie; several when a client sends several. */
export const ourCookies = (headers: readonly string[]): string[] =>
  cookiePairs(headers)
    .filter(isOurs)
    .map((pair) => pair.slice(pair.indexOf('=') + 1));

const cookiesWithoutOurs = (headers: readonly string[]): string =>
  cookiePairs(headers)
    .filter((pair) => !isOurs(pair))
    .join('; ');

const cookiePairs = (headers: readonly string[]): string[] =>
  headers.flatMap((header) => header.split(';').map((pair) => pair.trim())).filter((pair) => pair !== '');

/** Browsers take `=name=value` for a cookie without a name and send it back as `name=value`. */
const isOurs = (pair: string): boolean =>
  pair
    .replace(/^[=\s]+/, '')
    .slice(0, COOKIE_NAME.length + 1)
    .replace(/\s+$/, '')
    .toLowerCase()
    .startsWith(COOKIE_NAME.toLowerCase());

/** A cookie that a guest sets, kept to its own host; undefined when it is none of its business. */
function guestCookie(value: string, hostName: string): string | undefined {
  const [pair = '', ...attributes] = value.split(';');
  if (isOurs(pair.trim())) return undefined;
  const kept = attributes.filter((attribute) => {
    const [, domain] = /^\s*domain\s*=?\s*(.*?)\s*$/i.exec(attribute) ?? [];
    return domain === undefined || domain.replace(/^\./, '').toLowerCase() === hostName;
  });
  return [pair, ...kept].join(';');
}

/** The request target without our token parameter; everything else stays byte for byte. */
export function takeToken(target: string): { readonly target: string; readonly token: string | undefined } {
  const mark = target.indexOf('?');
  if (mark < 0) return { target, token: undefined };
  let token: string | undefined;
  const kept = target
    .slice(mark + 1)
    .split('&')
    .filter((parameter) => {
      const [name = '', value = ''] = parameter.split('=', 2);
      if (decoded(name) !== 'instavm_token') return true;
      token ??= decoded(value);
      return false;
    });
  if (token === undefined) return { target, token };
  const path = target.slice(0, mark);
  return { target: kept.length === 0 ? path : `${path}?${kept.join('&')}`, token };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
