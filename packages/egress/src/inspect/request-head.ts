/**
 * One request line with its header fields (RFC 9112 §3, §5, §6), read as strictly as the grammar allows: a line that two servers could
 * understand differently is a mismatch, because the second one would serve another host than the one that was checked.
 */
import { Disagreement, quoted } from './agreement.ts';

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const FIELD_VALUE = /^[\t -~\x80-\xff]*$/;
const REQUEST_LINE = /^([A-Za-z][A-Za-z0-9_-]*) ([!-~]+) (HTTP\/1\.[01])$/;
/** The scheme may have any case; what stands between it and the path has to be the authority and nothing else. */
const ABSOLUTE_FORM = /^http:\/\/([^/?#]*)(?:[/?][^#]*)?$/i;
/** Fifteen digits are exact in a double, and no server's 64-bit counter overflows. */
const CONTENT_LENGTH = /^[0-9]{1,15}$/;

/** Bytes of body that follow, or chunks (RFC 9112 §7.1). */
export type Body = number | 'chunked';

/** What a connection was allowed for. */
export type Site = {
  /** Lower case, A-labels, no trailing dot. */
  readonly name: string;
  readonly port: number;
};

/** Built line by line, so that a disagreement shows as soon as its line is complete. Lines come without CR LF. */
export class RequestHead {
  readonly #site: Site;
  readonly #version: string;
  /** Fields that decide about host, framing or protocol; each may come once. */
  readonly #decisive = new Map<string, string>();

  constructor(line: string, site: Site) {
    this.#site = site;
    if (line.startsWith('PRI * HTTP/2')) throw notHttp('speaks HTTP/2 without TLS', site);
    const [, method, target, version] = REQUEST_LINE.exec(line) ?? [];
    if (!method || !target || !version) throw notHttp('does not speak HTTP/1', site);
    if (method.toUpperCase() === 'CONNECT')
      throw new Disagreement(`The request ${quoted(line)} asks a proxy for a tunnel.`);
    this.#version = version;
    this.#checkTarget(target);
  }

  #checkTarget(target: string): void {
    if (target.startsWith('/') || target === '*') return;
    const authority = ABSOLUTE_FORM.exec(target)?.[1];
    if (authority === undefined)
      throw new Disagreement(`The request target ${quoted(target)} is not a path or an http URL.`);
    this.#checkAuthority(authority, 'request target');
  }

  #checkAuthority(authority: string, where: string): void {
    const { name, port } = this.#site;
    const asked = authority.toLowerCase();
    if (asked === name || asked === `${name}:${port}`) return;
    throw new Disagreement(
      `The ${where} names ${quoted(authority)}, but this connection was allowed for ${quoted(name)} on port ${port} only.`,
    );
  }

  field(line: string): void {
    const [name, value] = splitField(line);
    if (!isDecisive(name)) return;
    if (this.#decisive.has(name)) throw new Disagreement(`The request has the header ${quoted(name)} twice.`);
    this.#decisive.set(name, value);
  }

  /** The empty line has come. */
  finish(): { body: Body; asksForWebSocket: boolean } {
    const host = this.#decisive.get('host');
    if (host !== undefined) this.#checkAuthority(host, 'Host header');
    else if (this.#version !== 'HTTP/1.0') throw new Disagreement('The request has no Host header.');
    const body = this.#body();
    const asksForWebSocket = body === 0 && this.#decisive.get('upgrade')?.toLowerCase() === 'websocket';
    return { body, asksForWebSocket };
  }

  #body(): Body {
    const length = this.#decisive.get('content-length');
    const coding = this.#decisive.get('transfer-encoding');
    if (length !== undefined && coding !== undefined) {
      throw new Disagreement('The request has both Content-Length and Transfer-Encoding.');
    }
    if (coding !== undefined) {
      if (coding.toLowerCase() === 'chunked' && this.#version === 'HTTP/1.1') return 'chunked';
      throw new Disagreement(
        `The end of a ${this.#version} request with Transfer-Encoding ${quoted(coding)} is ambiguous.`,
      );
    }
    if (length === undefined) return 0;
    if (!CONTENT_LENGTH.test(length)) throw new Disagreement(`The request has the Content-Length ${quoted(length)}.`);
    return Number(length);
  }
}

/** A trailer field (RFC 9110 §6.5.1): must not change what the head said. */
export function checkTrailer(line: string): void {
  const [name] = splitField(line);
  if (isDecisive(name)) throw new Disagreement(`The trailer of the request has the field ${quoted(name)}.`);
}

const DECISIVE: readonly string[] = ['host', 'content-length', 'transfer-encoding', 'upgrade'];

function isDecisive(name: string): boolean {
  if (DECISIVE.includes(name)) return true;
  // CGI and WSGI turn both "-" and "_" into "_": behind them, such a name is the decisive one.
  if (!DECISIVE.includes(name.replaceAll('_', '-'))) return false;
  throw new Disagreement(`The request has the misspelt header ${quoted(name)}.`);
}

/** @returns name in lower case, value without the white space around it */
function splitField(line: string): readonly [string, string] {
  const colon = line.indexOf(':');
  const name = line.slice(0, Math.max(colon, 0));
  const value = line.slice(colon + 1);
  // A continued line (obs-fold) and white space before the colon fail here as well: neither is a token.
  if (!TOKEN.test(name) || !FIELD_VALUE.test(value))
    throw new Disagreement(`${quoted(line)} is not a header of HTTP/1.`);
  return [name.toLowerCase(), trimmed(value)];
}

/** White space as HTTP means it; `trim` would take away more. A pattern anchored at the end would be quadratic. */
function trimmed(value: string): string {
  const isBlank = (at: number): boolean => value[at] === ' ' || value[at] === '\t';
  let start = 0;
  let end = value.length;
  while (start < end && isBlank(start)) start += 1;
  while (end > start && isBlank(end - 1)) end -= 1;
  return value.slice(start, end);
}

/** Every request begins so; a program that speaks something else need not wait for the end of a line to hear it. */
export function checkFirstByte(byte: number | undefined, site: Site): void {
  if (byte === undefined || !/[A-Za-z]/.test(String.fromCharCode(byte))) throw notHttp('does not speak HTTP/1', site);
}

/** @param does the verb of the sentence and what follows it */
function notHttp(does: string, { name, port }: Site): Disagreement {
  const expected = port === 443 ? ', TLS or SSH' : '';
  const open = port === 443 ? 'allow_https' : 'allow_http';
  return new Disagreement(
    `The program ${does}${expected} on port ${port}, so nothing shows that it stays with ${quoted(name)}: allow every host on this port with ${open}, or use another port.`,
  );
}
