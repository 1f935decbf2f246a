/** A real name server on loopback, over UDP, whose answers a test may change. It remembers what it was asked. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type Answer, decode, encode } from 'dns-packet';

const NXDOMAIN = 3;
const SERVFAIL = 2;

/** Answers of any types: those that fit the question are given, CNAMEs always; none that fits is NODATA. */
export type Zone = Answer[] | 'nxdomain' | 'servfail' | 'silent' | 'garbage';

export class DnsServer {
  /** `TYPE name`, in the order of asking. */
  readonly queries: string[] = [];
  readonly zones = new Map<string, Zone | (() => Zone)>();
  readonly #socket = createSocket('udp4');

  static async start(): Promise<DnsServer> {
    const server = new DnsServer();
    server.#socket.on('message', (message, from) => {
      const reply = server.#reply(message);
      if (reply !== undefined) server.#socket.send(reply, from.port, from.address);
    });
    server.#socket.bind(0, '127.0.0.1');
    await once(server.#socket, 'listening');
    return server;
  }

  get address(): string {
    return `127.0.0.1:${this.#socket.address().port}`;
  }

  /** The name has these addresses. */
  host(name: string, ...addresses: string[]): void {
    this.zones.set(name, addressesOf(name, addresses));
  }

  #reply(message: Buffer): Buffer | undefined {
    const { id, questions = [] } = decode(message);
    const [question] = questions;
    if (question === undefined) return undefined;
    this.queries.push(`${question.type} ${question.name}`);
    const entry = this.zones.get(question.name.toLowerCase()) ?? 'nxdomain';
    const zone = typeof entry === 'function' ? entry() : entry;
    if (zone === 'silent') return undefined;
    if (zone === 'garbage') return Buffer.concat([message.subarray(0, 2), Buffer.alloc(60, 0xff)]);
    const rcode = zone === 'nxdomain' ? NXDOMAIN : zone === 'servfail' ? SERVFAIL : 0;
    const records = Array.isArray(zone) ? zone : [];
    const answers = records.filter(({ type }) => type === question.type || type === 'CNAME');
    return encode({ type: 'response', id: id ?? 0, flags: 0x0180 | rcode, questions, answers });
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.close(resolve));
  }
}

export const addressesOf = (name: string, addresses: readonly string[]): Answer[] =>
  addresses.map((data) => ({ type: data.includes(':') ? 'AAAA' : 'A', name, ttl: 0, data }) as Answer);
