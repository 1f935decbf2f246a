/**
 * The outside as the scenarios need it, on loopback alone: a DNS server with a zone that misbehaves, and servers on 127.0.1.1 (and ::1), which the
 * daemon is told to take for public. Everything else of 127.0.0.0/8 stays what it is.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { decode, encode, type StringAnswer } from 'dns-packet';
import { generate } from 'selfsigned';

export const PUBLIC = '127.0.1.1';
export const SITE_CIDRS = '127.0.1.0/24 ::1/128';
/** Public addresses that nobody has: only {@link Outside.proxy} leads them here. */
export const FAR = '192.0.2.80';
export const FAR_CIDRS = '192.0.2.0/24 2001:db8::/32';

/** Ports of servers that do one thing each. */
export const PORTS = { echo: 7, sink: 9, slow: 19, resetter: 21, web: 8080, closed: 6881 } as const;

/** A name's addresses; asked for again, the next of several sets. */
type Zone = Readonly<Record<string, readonly (readonly string[])[]>>;

const here = [[PUBLIC]];
const ZONE: Zone = {
  'allowed.test': here,
  'other.test': here,
  'ports.test': here,
  'wild.test': here,
  'a.wild.test': here,
  'b.a.wild.test': here,
  'xn--bcher-kva.test': here,
  'six.test': [['::1']],
  'both.test': [['::1', PUBLIC]],
  'private.test': [['10.0.0.5']],
  'loop.test': [['127.0.0.1']],
  'metadata.test': [['169.254.169.254']],
  'mapped.test': [['::ffff:7f00:1']],
  'nat64.test': [['64:ff9b::7f00:1']],
  'mixed.test': [['127.0.0.1', PUBLIC]],
  'rebind.test': [[PUBLIC], ['127.0.0.1']],
  'empty.test': [[]],
  'text.test': here,
};
const ALIASES: Readonly<Record<string, string>> = { 'alias.test': 'other.test', 'alias-private.test': 'private.test' };
const SILENT = 'silent.test';

type Closable = { close(): unknown; closeAllConnections?: () => void };

export class Outside {
  readonly #dns: UdpSocket;
  readonly #servers: Closable[];
  readonly #sockets: Set<Socket>;
  /** `name type` of everything that was asked. */
  readonly asked: string[];
  readonly dnsServer: string;
  /** Of the HTTP proxy. */
  readonly proxy: string;
  /** `host:port` of every CONNECT that the proxy was asked for. */
  readonly tunnels: string[];

  private constructor(dns: UdpSocket, servers: Closable[], proxy: Proxy, sockets: Set<Socket>, asked: string[]) {
    this.#dns = dns;
    this.#servers = servers;
    this.#sockets = sockets;
    this.asked = asked;
    this.proxy = `http://127.0.0.1:${proxy.port}`;
    this.tunnels = proxy.tunnels;
    this.dnsServer = `127.0.0.1:${dns.address().port}`;
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#sockets.size;
  }

  static async open(): Promise<Outside> {
    const asked: string[] = [];
    const dns = createSocket('udp4');
    const turns = new Map<string, number>();
    dns.on('message', (query, { port, address }) => {
      const answer = answerTo(query, asked, turns);
      if (answer !== undefined) dns.send(answer, port, address);
    });
    dns.bind(0, '127.0.0.1');
    await once(dns, 'listening');
    const sockets = new Set<Socket>();
    const { private: key, cert } = await generate([{ name: 'commonName', value: 'outside.test' }]);
    const web = (): Server => createHttpServer(serveWeb);
    const servers: [Server | ReturnType<typeof createServer>, number, string][] = [
      [web(), 80, PUBLIC],
      [web(), 80, '::1'],
      [web(), 80, '127.0.0.1'],
      [web(), PORTS.web, PUBLIC],
      [createHttpsServer({ key, cert }, serveWeb) as unknown as Server, 443, PUBLIC],
      [createServer({ allowHalfOpen: true }, echo), PORTS.echo, PUBLIC],
      [createServer({ allowHalfOpen: true }, sink), PORTS.sink, PUBLIC],
      [createServer(slow), PORTS.slow, PUBLIC],
      [createServer(reset), PORTS.resetter, PUBLIC],
    ];
    for (const [server, port, host] of servers) {
      server.on('connection', (socket: Socket) => {
        sockets.add(socket.once('close', () => sockets.delete(socket)));
      });
      server.listen(port, host, 4096);
      await once(server, 'listening');
    }
    const proxy = await openProxy(sockets);
    const all = [...servers.map(([server]) => server), proxy.server];
    return new Outside(dns, all, proxy, sockets, asked);
  }

  close(): void {
    this.#dns.close();
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections?.();
    }
    for (const socket of this.#sockets) socket.destroy();
  }
}

type Proxy = { readonly server: Server; readonly port: number; readonly tunnels: string[] };

/** Leads every address to the server of the same port on {@link PUBLIC}. */
async function openProxy(sockets: Set<Socket>): Promise<Proxy> {
  const tunnels: string[] = [];
  const server = createHttpServer((_, response) => void response.writeHead(405).end());
  server.on('connect', ({ url = '' }, client: Socket) => {
    tunnels.push(url);
    const onwards = connect(Number(url.slice(url.lastIndexOf(':') + 1)), PUBLIC);
    for (const socket of [client, onwards]) {
      sockets.add(socket.once('close', () => sockets.delete(socket)));
      socket.on('error', () => {
        onwards.destroy();
        client.destroy();
      });
    }
    onwards.once('connect', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n');
      client.pipe(onwards).pipe(client);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port, tunnels };
}

/** Says which host was asked for; `/bytes/N` is so many bytes. */
function serveWeb(request: IncomingMessage, response: ServerResponse): void {
  const [, bytes] = /^\/bytes\/(\d+)$/.exec(request.url ?? '') ?? [];
  if (bytes === undefined) return void response.end(`reached ${request.headers.host}`);
  const chunk = Buffer.alloc(64 * 1024);
  let left = Number(bytes);
  const more = (): void => {
    while (left > 0) {
      const piece = chunk.subarray(0, Math.min(left, chunk.length));
      left -= piece.length;
      if (!response.write(piece)) return void response.once('drain', more);
    }
    response.end();
  };
  more();
}

function echo(socket: Socket): void {
  socket.on('error', () => {}).pipe(socket);
}

/** Answers with the number of bytes when the other side has ended its own. */
function sink(socket: Socket): void {
  let count = 0;
  socket
    .on('error', () => {})
    .on('data', (bytes) => {
      count += bytes.length;
    })
    .on('end', () => socket.end(String(count)));
}

/** A byte now and then, for ever. */
function slow(socket: Socket): void {
  const timer = setInterval(() => socket.write('.'), 100);
  socket.on('error', () => {}).on('close', () => clearInterval(timer));
}

function reset(socket: Socket): void {
  socket.on('error', () => {}).once('data', () => socket.resetAndDestroy());
}

function answerTo(query: Buffer, asked: string[], turns: Map<string, number>): Buffer | undefined {
  const { id, questions: [question] = [] } = decode(query);
  if (question === undefined) return undefined;
  const { name, type } = question;
  asked.push(`${name} ${type}`);
  if (name === SILENT) return undefined;
  const target = ALIASES[name] ?? name;
  const sets = ZONE[target];
  const alias = target === name ? [] : [{ type: 'CNAME' as const, name, ttl: 60, data: target }];
  const turn = turns.get(target) ?? 0;
  if (type === 'A') turns.set(target, turn + 1);
  const addresses = sets?.[Math.min(turn, sets.length - 1)] ?? [];
  const wanted = addresses.filter((address) => address.includes(':') === (type === 'AAAA'));
  const records: StringAnswer[] = wanted.map((data) => ({ type: type as 'A', name: target, ttl: 60, data }));
  const text = target === 'text.test' && type === 'TXT' ? [{ type: 'TXT' as const, name, ttl: 60, data: 'hello' }] : [];
  const rcode = sets === undefined ? 3 : 0;
  const answers = [...alias, ...(type === 'A' || type === 'AAAA' ? records : text)];
  return encode({ type: 'response', id: id ?? 0, flags: 0x0180 | rcode, questions: [question], answers });
}
