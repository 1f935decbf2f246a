/** What tunnels to programs of the guest do on every backend. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import type { AgentClient } from '@instavm/agent-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const DEADLINE_MS = 100_000;
const BULK_BYTES = 8 * 1024 * 1024;
const MANY = 100;

/**
 * One server for all of it: what comes decides what it does. It takes any port and tells which, for the fake's guests share the host's.
 * `e`cho until the end, then say `bye`; `d`igest of what comes until the end; `b`ytes, as many as the line says; `r`eset at the next byte;
 * `w`atch: says `y`es, takes nothing, and tells the file `ended` how its connection ended.
 */
const SERVER = `
import hashlib, os, socket, struct, sys, threading, time
def reset(peer):
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
def serve(peer):
    with peer:
        kind = peer.recv(1)
        if kind == b'e':
            while data := peer.recv(65536):
                peer.sendall(data)
            peer.sendall(b'bye')
        elif kind == b'd':
            digest = hashlib.sha256()
            while data := peer.recv(65536):
                digest.update(data)
            peer.sendall(digest.hexdigest().encode())
        elif kind == b'b':
            count = int(peer.makefile('r').readline())
            piece = bytes(range(256)) * 1024
            while count > 0:
                peer.sendall(piece[:count])
                count -= len(piece)
        elif kind == b'r':
            peer.sendall(b'some')
            peer.recv(1)
            reset(peer)
        elif kind == b'w':
            peer.sendall(b'y')
            try:
                how = 'end' if peer.recv(1) == b'' else 'more'
            except ConnectionResetError:
                how = 'reset'
            with open('ended', 'w') as file:
                file.write(how)
family, address = (socket.AF_INET6, '::1') if sys.argv[1] == '6' else (socket.AF_INET, '127.0.0.1')
server = socket.socket(family)
server.bind((address, 0))
server.listen(256)
print(server.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
`;

type WithClone = (hostname: string, body: (agent: AgentClient) => Promise<void>) => Promise<void>;

export function describeTunnels(withClone: WithClone): void {
  describe('tunnels', () => {
    let agent: AgentClient;
    let port: number;
    let stop = (): void => {};
    let ended: Promise<void>;

    beforeAll(async () => {
      await new Promise<void>((ready, failed) => {
        ended = withClone('tunnels', async (clone) => {
          agent = clone;
          port = await serve(clone, '4');
          const stopped = new Promise<void>((resolve) => {
            stop = resolve;
          });
          ready();
          await stopped;
        });
        ended.catch(failed);
      });
    });
    afterAll(async () => {
      stop();
      await ended;
    });

    const open = (to = port): Promise<Duplex> => agent.tunnel(to, { deadlineMs: DEADLINE_MS });

    it('carries bytes both ways, and ends one way before the other', async () => {
      const tunnel = await open();
      tunnel.write('e');
      tunnel.write('hello');
      expect(String((await once(tunnel, 'data'))[0])).toBe('hello');
      tunnel.end(', and more');
      expect(await text(tunnel)).toBe(', and morebye');
      if (!tunnel.closed) await once(tunnel, 'close');
    });

    it('reaches a server at the IPv6 loopback address alone', async () => {
      const tunnel = await open(await serve(agent, '6'));
      tunnel.end('eA');
      expect(await text(tunnel)).toBe('Abye');
    });

    it('says that nobody listens, and that a port is none', async () => {
      await expect(open(await unusedPort(agent))).rejects.toMatchObject({ reason: 'port_refused' });
      await expect(open(0)).rejects.toMatchObject({ reason: 'protocol' });
      await expect(open(70_000)).rejects.toMatchObject({ reason: 'protocol' });
    });

    it('carries megabytes unchanged in both directions', async () => {
      const [up, down] = [await open(), await open()];
      const sent = randomBytes(BULK_BYTES);
      up.end(Buffer.concat([Buffer.from('d'), sent]));
      down.end(`b${BULK_BYTES}\n`);
      const [digest, bytes] = await Promise.all([text(up), buffer(down)]);
      expect(digest).toBe(sha256(sent));
      const alphabet = Buffer.from(Array.from({ length: 256 }, (_, value) => value));
      expect(sha256(bytes)).toBe(sha256(Buffer.alloc(BULK_BYTES, alphabet)));
    });

    it('carries many at once, while a hundred that nobody reads are full', async () => {
      const stalled = await Promise.all(Array.from({ length: MANY }, () => open()));
      for (const tunnel of stalled) tunnel.write(`b${2 * 1024 * 1024}\n`);
      await Promise.all(stalled.map((tunnel) => once(tunnel, 'readable')));
      const answers = Array.from({ length: MANY }, async (_, index) => {
        const tunnel = await open();
        tunnel.end(`e${index}.`);
        return text(tunnel);
      });
      expect(await Promise.all(answers)).toEqual(answers.map((_, index) => `${index}.bye`));
      for (const tunnel of stalled) tunnel.destroy();
    });

    it('fails without an end when the program resets', async () => {
      const tunnel = await open();
      tunnel.write('r');
      expect(String((await once(tunnel, 'data'))[0])).toBe('some');
      tunnel.write('x');
      await expect(once(tunnel, 'end')).rejects.toMatchObject({ reason: 'connection_reset' });
    });

    it('is told neither an end nor an error of what it gave up itself', async () => {
      const tunnel = await open();
      const heard: string[] = [];
      for (const event of ['end', 'error']) tunnel.on(event, () => heard.push(event));
      tunnel.resume();
      tunnel.destroy();
      await once(tunnel, 'close');
      expect(heard).toEqual([]);
    });

    it('resets the program when it is destroyed', async () => {
      const tunnel = await open();
      tunnel.write('w');
      // What was written before arrives before the reset only when there is time for it.
      expect(String((await once(tunnel, 'data'))[0])).toBe('y');
      tunnel.destroy();
      let how = '';
      while (how === '') how = await contents(agent, '/workspace/ended');
      expect(how).toBe('reset');
    });

    it('gives up an attempt by its signal', async () => {
      const signal = AbortSignal.abort();
      await expect(agent.tunnel(port, { signal, deadlineMs: DEADLINE_MS })).rejects.toMatchObject({
        reason: 'cancelled',
      });
    });
  });
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** Starts the server, which runs as long as the guest. @returns its port */
const serve = (agent: AgentClient, family: '4' | '6'): Promise<number> => firstLine(agent, SERVER, family);

/** Nobody listens on it, and nobody else gets it. */
const unusedPort = (agent: AgentClient): Promise<number> =>
  firstLine(
    agent,
    `import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(3600)`,
  );

async function firstLine(agent: AgentClient, program: string, ...more: string[]): Promise<number> {
  const args = ['python3', '-c', program, ...more];
  async function* messages() {
    yield { message: { case: 'start', value: { command: { case: 'argv', value: { args } } } } } as const;
  }
  const events = agent.exec.run(messages())[Symbol.asyncIterator]();
  let output = '';
  for (;;) {
    const next = await events.next();
    if (next.done === true || next.value.event.case === 'exit') throw new Error(`no port, but: ${output}`);
    const { event } = next.value;
    if (event.case === 'stderr' || event.case === 'stdout') output += Buffer.from(event.value).toString();
    if (event.case === 'stdout') return Number(output);
  }
}

async function contents(agent: AgentClient, path: string): Promise<string> {
  let found = '';
  try {
    for await (const { data } of agent.files.read({ target: { path } })) found += Buffer.from(data).toString();
  } catch {
    // Not there yet.
  }
  return found;
}
