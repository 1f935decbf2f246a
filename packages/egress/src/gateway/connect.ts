/** A guest's CONNECT, in stages: name → policy → look-up → addresses → dial → relay. Each may be the last, and says why. */
import { constants, type ServerHttp2Stream } from 'node:http2';
import type { EgressRecord } from '@instavm/core';
import { httpCheck } from '../inspect/http.ts';
import { tlsCheck } from '../inspect/tls.ts';
import { parseAuthority } from '../policy/names.ts';
import type { NameVerdict } from '../policy/policy.ts';
import type { Destination, Verdict } from '../policy/verdict.ts';
import { DialError, type Dialled, dial, dialThroughProxy } from './dial.ts';
import { Flow } from './flow.ts';
import { Intake } from './intake.ts';
import type { Network } from './network.ts';

/** Long enough for a SYN to be sent a fourth time (after 1, 3 and 7 s). */
const CONNECT_MS = 10_000;

export const HTTP_REASON = 'instavm-reason';
export const HTTP_RULE = 'instavm-rule';

/** How a program's attempt is answered when it fails, in the words of the egress channel. */
type Failure = DialError['failure'] | 'name_not_found' | 'given_up';

const STATUS: Readonly<Record<Failure, number>> = {
  connection_refused: 502,
  connect_timeout: 504,
  unreachable: 502,
  proxy_failed: 502,
  name_not_found: 502,
  // Nobody is there to read it.
  given_up: 502,
};

const GIVEN_UP = 'given up by the sandbox before it was connected';

/** What is open, as the policy sees it. */
export type OpenFlow = {
  readonly destination: Destination;
  readonly address: string;
  readonly flow: Flow;
  /** Whether its bytes are checked against the name. */
  readonly isChecked: boolean;
};

export type ConnectContext = {
  readonly network: Network;
  /** Those of this sandbox, this one not yet among them. */
  readonly flows: Set<OpenFlow>;
  /** How many CONNECTs of this sandbox are being served besides this one: open ones, and those that wait for a look-up or an answer. */
  readonly others: number;
  readonly record: (record: EgressRecord) => void;
  readonly sent: (bytes: number) => void;
  readonly received: (bytes: number) => void;
};

/** Serves one CONNECT to its end. Never rejects. */
export async function serveConnect(
  context: ConnectContext,
  stream: ServerHttp2Stream,
  authority: string,
): Promise<void> {
  const { network, flows } = context;
  const intake = new Intake(stream);
  const startedAt = Date.now();
  const destination = parseAuthority(authority);
  if (destination === undefined) return respond(stream, 400, 'malformed_authority');
  const { host, port } = destination;
  const about = { at: new Date(startedAt), kind: 'connect', host, port } as const;
  const nothing = { bytesSent: 0, bytesReceived: 0 };
  const deny = (address: string | null, { rule, reason }: Verdict & { allowed: false }): void => {
    respond(stream, 403, 'egress_denied', rule);
    const durationMs = Date.now() - startedAt;
    context.record({ ...about, ...nothing, address, allowed: false, rule, outcome: 'denied', reason, durationMs });
  };
  const fail = (address: string | null, rule: string, failure: Failure, reason: string): void => {
    respond(stream, STATUS[failure], failure);
    const durationMs = Date.now() - startedAt;
    context.record({ ...about, ...nothing, address, allowed: true, rule, outcome: 'failed', reason, durationMs });
  };

  const byName = destination.isAddress ? undefined : network.policy.decideName(host, port);
  if (byName?.allowed === false) return deny(null, byName);
  if (context.others >= network.maxConnections) {
    const reason = `the sandbox has ${context.others} connections, opening ones included, which is as many as it may have`;
    respond(stream, 429, 'too_many_connections');
    const end = { allowed: false, rule: 'limit', outcome: 'denied', reason, durationMs: 0 } as const;
    return context.record({ ...about, ...nothing, address: null, ...end });
  }
  const found = await findAddresses(network, destination);
  if (isGone(stream)) return fail(null, ruleOf(byName), 'given_up', GIVEN_UP);
  if (found.length === 0) return fail(null, ruleOf(byName), 'name_not_found', `${host} has no address`);
  // The policy of now: it may have changed while the name was looked up.
  const { allowed, denied } = judge(network, found, destination);
  const [first] = allowed;
  if (first === undefined) {
    const [refused] = denied;
    if (refused !== undefined) deny(refused.address, refused.verdict);
    return;
  }
  const addresses = allowed.map(({ address }) => address);
  let dialled: Dialled;
  const attempt = new AbortController();
  const giveUp = (): void => attempt.abort();
  const deadline = setTimeout(giveUp, CONNECT_MS);
  stream.once('close', giveUp);
  try {
    dialled = await (network.proxy === undefined
      ? dial(addresses, port, attempt.signal)
      : dialThroughProxy(network.proxy, addresses, port, attempt.signal));
  } catch (error) {
    if (isGone(stream)) return fail(first.address, first.verdict.rule, 'given_up', GIVEN_UP);
    const { failure, message } = error instanceof DialError ? error : new DialError('unreachable', String(error));
    return fail(first.address, first.verdict.rule, failure, message);
  } finally {
    clearTimeout(deadline);
    stream.off('close', giveUp);
  }
  const { socket, address } = dialled;
  // And once more, about the address that it is now: nothing was sent yet.
  const now = judge(network, [address], destination);
  const [still] = now.allowed;
  if (still === undefined || isGone(stream)) {
    socket.destroy();
    const [refused] = now.denied;
    if (refused !== undefined) deny(address, refused.verdict);
    else fail(address, first.verdict.rule, 'given_up', GIVEN_UP);
    return;
  }
  const { rule } = still.verdict;
  const isChecked = !destination.isAddress && network.policy.mustAgree(host, port, still.verdict);
  const check = isChecked ? (port === 443 ? tlsCheck(host) : httpCheck(host, port)) : undefined;
  stream.respond({ ':status': 200 });
  const { sent, received } = context;
  const flow = new Flow({ stream, intake, socket, check, bandwidth: network.bandwidth, sent, received });
  const open: OpenFlow = { destination, address, flow, isChecked };
  flows.add(open);
  context.record({
    ...about,
    ...nothing,
    address,
    allowed: true,
    rule,
    outcome: 'open',
    reason: null,
    durationMs: null,
  });
  const end = await flow.ended;
  flows.delete(open);
  const isAllowed = end.outcome !== 'denied';
  const named = isAllowed ? rule : 'host_mismatch';
  context.record({ ...about, ...end, address, allowed: isAllowed, rule: named, durationMs: Date.now() - startedAt });
}

export type Judged = { readonly address: string; readonly verdict: Verdict };

/** What the policy says of each address, and of its being one of this host's own. */
export function judge(
  network: Network,
  addresses: readonly string[],
  { host, isAddress, port }: Destination,
): {
  readonly allowed: readonly { address: string; verdict: Verdict & { allowed: true } }[];
  readonly denied: readonly { address: string; verdict: Verdict & { allowed: false } }[];
} {
  const byName: NameVerdict | undefined = isAddress ? undefined : network.policy.decideName(host, port);
  const allowed = [];
  const denied = [];
  for (const address of addresses) {
    const verdict = network.decide(address, port, byName);
    if (verdict.allowed) allowed.push({ address, verdict });
    else denied.push({ address, verdict });
  }
  return { allowed, denied };
}

/** IPv6 and IPv4 in turn (RFC 8305 §4); a literal is its own address. Empty when there is none. */
export async function findAddresses(
  { resolver }: Network,
  { host, isAddress }: Destination,
): Promise<readonly string[]> {
  if (isAddress) return [host];
  const { ipv4, ipv6 } = await resolver.addresses(host);
  return Array.from({ length: Math.max(ipv4.length, ipv6.length) }, (_, at) => [ipv6[at], ipv4[at]])
    .flat()
    .filter((address) => address !== undefined);
}

const ruleOf = (verdict: NameVerdict | undefined): string =>
  verdict?.allowed === true ? verdict.rule : 'allowed_cidrs';

const isGone = (stream: ServerHttp2Stream): boolean => stream.destroyed || stream.closed;

/** A stream that has gone needs no answer. */
export function respond(stream: ServerHttp2Stream, status: number, reason: string, rule?: string): void {
  if (isGone(stream) || stream.headersSent) return;
  const headers = { ':status': status, [HTTP_REASON]: reason, ...(rule === undefined ? {} : { [HTTP_RULE]: rule }) };
  stream.respond(headers, { endStream: true });
  // Whatever else was sent is not wanted.
  stream.close(constants.NGHTTP2_NO_ERROR);
}
