/** The egress channel of one incarnation: opened again whenever it drops, HTTP/2 with the guest as the client. The guest is hostile; garbage costs it its own network. */
import { performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { reset, synchronize } from '@instavm/agent-client';
import type { EgressLink, EgressPolicy, EgressRecord, LifecycleLog, SandboxId } from '@instavm/core';
import { HTTP_REASON, HTTP_RULE, judge, type OpenFlow, respond, serveConnect } from './connect.ts';
import { compact } from './intake.ts';
import { lookUp, MAX_QUERY_BYTES } from './lookup.ts';
import type { Network } from './network.ts';

/** A busy emulating host may let a guest wait. */
const SYNC_MS = 10_000;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 10_000;
/** After so long the next drop is a new story. */
const STEADY_MS = 30_000;
/** As in the guest: 1,024 connections and 64 look-ups. */
const MAX_STREAMS = 1088;
const MAX_LOOKUPS = 64;
/** A stalled stream holds at most this much, and one guest may have a thousand of them. */
const STREAM_WINDOW_BYTES = 256 * 1024;
const CONNECTION_WINDOW_BYTES = 64 * 1024 * 1024;
const LOOKUP_BODY_MS = 5_000;

const HTTP2_OPTIONS = {
  settings: {
    initialWindowSize: STREAM_WINDOW_BYTES,
    maxFrameSize: 256 * 1024,
    maxConcurrentStreams: MAX_STREAMS,
    maxHeaderListSize: 8 * 1024,
  },
  maxHeaderListPairs: 16,
  maxSessionInvalidFrames: 16,
  maxSessionRejectedStreams: MAX_STREAMS,
  /** MB. Of streams whose guest does not read: each keeps a chunk and what Node buffers. Beyond, new streams are refused. */
  maxSessionMemory: 256,
  // Programs that give up connections by the thousand are ordinary here (RFC 9113 §10.5 leaves the measure to us).
  streamResetBurst: 20_000,
  streamResetRate: 2_000,
};

export type LinkOptions = {
  readonly sandboxId: SandboxId;
  readonly network: Network;
  readonly connect: () => Promise<Duplex>;
  readonly record: (record: EgressRecord) => void;
  readonly sent: (bytes: number) => void;
  readonly received: (bytes: number) => void;
  readonly log: LifecycleLog;
};

export class GatewayLink implements EgressLink {
  readonly #options: LinkOptions;
  readonly #closing = new AbortController();
  readonly #flows = new Set<OpenFlow>();
  readonly #served = Promise.withResolvers<void>();
  #channel: Duplex | undefined;
  #connects = 0;
  #lookups = 0;
  /** Before the channel is opened again; grows with every drop. */
  #pauseMs = FIRST_PAUSE_MS;

  constructor(options: LinkOptions) {
    this.#options = options;
    void this.#keepServing();
  }

  async ready(deadlineMs: number): Promise<void> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, deadlineMs);
    await Promise.race([this.#served.promise, late]);
    clearTimeout(timer);
  }

  setPolicy(policy: EgressPolicy): void {
    const { network } = this.#options;
    network.setPolicy(policy);
    for (const { destination, address, flow, isChecked } of this.#flows) {
      const { allowed, denied } = judge(network, [address], destination);
      const [refused] = denied;
      if (refused !== undefined) flow.cut(`the policy changed: ${refused.verdict.reason}`);
      const [kept] = allowed;
      const mustAgree =
        kept !== undefined &&
        !destination.isAddress &&
        network.policy.mustAgree(destination.host, destination.port, kept.verdict);
      // What it has said so far nobody has looked at.
      if (mustAgree && !isChecked) flow.cut('the policy changed: its host has to be checked now, from its beginning');
    }
  }

  forgive(): void {
    this.#pauseMs = FIRST_PAUSE_MS;
  }

  close(): void {
    this.#closing.abort();
    this.#channel?.destroy();
    for (const { flow } of this.#flows) flow.cut('the sandbox was stopped, saved or left to the next daemon');
    this.#served.resolve();
  }

  /** Never rejects. */
  async #keepServing(): Promise<void> {
    const { log, sandboxId } = this.#options;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const openedAt = performance.now();
      try {
        await this.#serve();
      } catch (error) {
        if (!signal.aborted) log.warn({ sandboxId, err: error }, 'the egress channel could not be opened');
      }
      if (signal.aborted) return;
      if (performance.now() - openedAt > STEADY_MS) this.#pauseMs = FIRST_PAUSE_MS;
      const pauseMs = this.#pauseMs;
      log.info({ sandboxId, pauseMs }, 'the egress channel dropped; opening it again');
      this.#pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
      await delay(pauseMs, undefined, { signal }).catch(() => {});
    }
  }

  /** Until the channel drops. */
  async #serve(): Promise<void> {
    const channel = await this.#options.connect();
    this.#channel = channel;
    if (this.#closing.signal.aborted) return void channel.destroy();
    channel.on('error', () => {});
    try {
      await synchronize(channel, SYNC_MS);
      const session = performServerHandshake(channel, HTTP2_OPTIONS);
      session.on('error', (error) =>
        this.#options.log.info({ sandboxId: this.#options.sandboxId, err: error }, 'the egress channel'),
      );
      // A guest that wants no more of this one gets a new one.
      session.once('goaway', () => session.destroy());
      session.once('remoteSettings', () => this.#served.resolve());
      session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
      session.on('stream', (stream, headers) => this.#request(session, stream, headers));
      await new Promise((resolve) => session.once('close', resolve));
    } finally {
      channel.destroy();
    }
  }

  #request(session: ServerHttp2Session, stream: ServerHttp2Stream, headers: Record<string, unknown>): void {
    // Each stage notices by itself; without a listener a reset would end the process.
    stream.on('error', () => {});
    const { ':method': method, ':path': path, ':authority': authority } = headers;
    if (method === 'CONNECT' && typeof authority === 'string')
      void this.#connect(stream, authority).catch((err: unknown) => this.#bug(stream, err));
    else if (method === 'POST' && path === '/dns-query')
      void this.#lookUp(stream).catch((err: unknown) => this.#bug(stream, err));
    else respond(stream, 404, 'unknown_request');
    if (session.destroyed) stream.destroy();
  }

  #bug(stream: ServerHttp2Stream, err: unknown): void {
    this.#options.log.warn({ sandboxId: this.#options.sandboxId, err }, 'serving a request of the egress channel');
    reset(stream);
  }

  async #connect(stream: ServerHttp2Stream, authority: string): Promise<void> {
    const { network, record, sent, received } = this.#options;
    const others = this.#connects++;
    try {
      await serveConnect({ network, flows: this.#flows, others, record, sent, received }, stream, authority);
    } finally {
      // One that the guest gave up counts until its look-up is over, or it could have any number of them.
      this.#connects--;
    }
  }

  async #lookUp(stream: ServerHttp2Stream): Promise<void> {
    if (this.#lookups >= MAX_LOOKUPS) return respond(stream, 429, 'too_many_lookups');
    this.#lookups++;
    try {
      const at = new Date();
      const query = await readQuery(stream);
      const { network } = this.#options;
      const answer = query && (await lookUp(query, (name) => network.policy.lookup(name), network.resolver));
      if (answer === undefined) return respond(stream, 400, 'malformed_query');
      const { message, denied } = answer;
      if (denied !== undefined) this.#recordDenied(at, denied.name);
      if (stream.destroyed || stream.closed) return;
      stream.respond({
        ':status': 200,
        'content-type': 'application/dns-message',
        ...(denied === undefined ? {} : { [HTTP_REASON]: 'egress_denied', [HTTP_RULE]: 'default_deny' }),
      });
      stream.end(message);
    } finally {
      this.#lookups--;
    }
  }

  #recordDenied(at: Date, host: string): void {
    const reason = `no rule allows ${host}, so nobody was asked about it`;
    const nothing = { port: null, address: null, bytesSent: 0, bytesReceived: 0, durationMs: null };
    this.#options.record({
      at,
      kind: 'lookup',
      host,
      allowed: false,
      rule: 'default_deny',
      outcome: 'denied',
      reason,
      ...nothing,
    });
  }
}

/** @returns undefined when it is too long, too slow or cut short */
async function readQuery(stream: ServerHttp2Stream): Promise<Buffer | undefined> {
  const pieces: Buffer[] = [];
  let size = 0;
  const timer = setTimeout(() => reset(stream), LOOKUP_BODY_MS);
  try {
    for await (const piece of stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += piece.length;
      if (size > MAX_QUERY_BYTES) return undefined;
      pieces.push(compact(piece));
    }
    return Buffer.concat(pieces);
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}
