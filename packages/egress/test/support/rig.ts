/** A gateway with one guest, one name server, and destinations on loopback: `127.0.1.0/24` stands for the public network. */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import type { EgressLink, EgressPolicy, EgressRecord, SandboxId } from '@instavm/core';
import { onTestFinished, type TestContext } from 'vitest';
import { Gateway, type GatewayOptions, Resolver } from '../../src/index.ts';
import { DnsServer } from './dns-server.ts';
import { Guest } from './guest.ts';

export const PUBLIC = '127.0.1.1';

export const policyOf = (some: Partial<EgressPolicy> = {}): EgressPolicy => ({
  allowHttp: false,
  allowHttps: false,
  allowPublicRepos: false,
  allowedDomains: [],
  allowedCidrs: [],
  ...some,
});

export type Rig = {
  readonly guest: Guest;
  readonly dns: DnsServer;
  readonly link: EgressLink;
  readonly records: EgressRecord[];
  /** What went wrong inside, as it was logged. */
  readonly warnings: unknown[];
  /** For how long a channel that dropped was left alone, each time. */
  readonly pauses: number[];
  /** Records without the `open` ones. */
  ends(): EgressRecord[];
};

export type RigOptions = Partial<GatewayOptions> & { policy?: Partial<EgressPolicy>; guest?: Guest };

/** Taken down at the end of the test, which asserts that nothing is left. */
export async function startRig({ policy, guest: given, ...options }: RigOptions = {}): Promise<Rig> {
  const guest = given ?? (await Guest.start());
  const dns = await DnsServer.start();
  const records: EgressRecord[] = [];
  const warnings: unknown[] = [];
  const pauses: number[] = [];
  const info = (fields: { readonly pauseMs?: number }): void => {
    if (fields.pauseMs !== undefined) pauses.push(fields.pauseMs);
  };
  const gateway = new Gateway({
    resolver: new Resolver([dns.address]),
    registries: [],
    siteCidrs: ['127.0.1.0/24'],
    forbiddenCidrs: [],
    proxy: undefined,
    maxConnections: 1_000,
    bytesPerSecond: Number.POSITIVE_INFINITY,
    defaultPolicy: policyOf(),
    record: (_sandboxId, record) => records.push(record),
    sent: () => {},
    received: () => {},
    log: { info, warn: (fields, message) => warnings.push({ ...fields, message }) },
    ...options,
  });
  const link = gateway.serve('sbx_test' as SandboxId, policyOf(policy), guest.open);
  onTestFinished(async () => {
    link.close();
    await guest.close();
    await dns.close();
  });
  return {
    guest,
    dns,
    link,
    records,
    warnings,
    pauses,
    ends: () => records.filter(({ outcome }) => outcome !== 'open'),
  };
}

export type Destination = { readonly port: number; readonly sockets: Set<Socket>; readonly server: Server };

/** A TCP server. Both of its directions end separately; its end of the test waits until the gateway has let go of every connection. */
export async function listen(serve: (socket: Socket) => void, host = PUBLIC, port = 0): Promise<Destination> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    serve(socket);
  });
  server.listen(port, host);
  await once(server, 'listening');
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return { port: (server.address() as { port: number }).port, sockets, server };
}

/** Why this process may not listen on a port below 1024, as CI may. */
const noLowPorts: string | undefined = await new Promise((resolve) => {
  const probe = createServer();
  // That another file asks the same at the moment is no reason.
  probe.once('error', ({ code, message }: NodeJS.ErrnoException) =>
    resolve(code === 'EADDRINUSE' ? undefined : `no ports below 1024 here: ${message}`),
  );
  probe.listen(443, '127.0.1.99', () => probe.close(() => resolve(undefined)));
});

export function needLowPorts({ skip }: TestContext): void {
  if (noLowPorts !== undefined) skip(noLowPorts);
}

export const echo = (socket: Socket): void => void socket.pipe(socket);

/** Waits until it is so; the test's own time-out is the deadline. */
export async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 5));
}
