/** Where requests come from: the other end of the connection, or, where that is a proxy of the operator's, whoever it says that it asks for. */
import type { IncomingMessage } from 'node:http';
import proxyAddr from '@fastify/proxy-addr';
import { CidrSet, parseAddress, unmapped } from '@instavm/egress';
import type { FastifyInstance } from 'fastify';

/** Whether it is believed what an address says in X-Forwarded-For about the one before it. Undefined is a connection that is gone. */
export type TrustedProxies = (address: string | undefined) => boolean;

export function trustedProxies(cidrs: readonly string[]): TrustedProxies {
  const proxies = CidrSet.of(cidrs);
  return (address) => address !== undefined && proxies.match(address) !== undefined;
}

/** Of what is no request of the application yet; `request.ip` is the same. */
export const addressOf = (request: IncomingMessage, isTrusted: TrustedProxies): string =>
  (proxyAddr(request, isTrusted) as string | undefined) ?? 'unknown';

/** Says so, once: an operator who put a proxy in front and did not name it has one limit for everybody. */
export function tellOfUnknownProxies(app: FastifyInstance, isTrusted: TrustedProxies): void {
  let isTold = false;
  app.addHook('onRequest', async ({ headers, socket, log }) => {
    if (isTold || headers['x-forwarded-for'] === undefined || isTrusted(socket.remoteAddress)) return;
    isTold = true;
    const hint =
      'if it is a proxy of yours, name it in INSTAVM_TRUSTED_PROXIES; until then all who come through it count as one';
    log.warn({ remoteAddress: socket.remoteAddress, hint }, 'somebody says in X-Forwarded-For that it asks for others');
  });
}

const NETWORK_BYTES = 8;
/** Some proxies add the port, which is another one with every connection. */
const WITH_PORT = /^(?:\[([^\]]+)\]|([\d.]+)):\d+$/;

/**
 * Whom limits by address count as one: whoever has one address of an IPv6 network has as many as they like (RFC 6177).
 * @param address `request.ip`, which is undefined for a connection that is gone, whatever its type says
 */
export function limitedAs(address: string | undefined): string {
  const [, ipv6, ipv4] = WITH_PORT.exec(address ?? '') ?? [];
  const parsed = parseAddress(ipv6 ?? ipv4 ?? address ?? '');
  const own = parsed && unmapped(parsed);
  if (own === undefined) return address ?? 'unknown';
  return own.kind() === 'ipv4' ? own.toString() : `${own.toByteArray().slice(0, NETWORK_BYTES).join('.')}/64`;
}
