/** The network of a sandbox: what the gateway costs, against the bare channel and the guest's own loopback. The outside is on this host's loopback. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { compilePolicy } from '@instavm/egress';
import { startTestDaemon } from '@instavm/testing';
import { decode, encode } from 'dns-packet';
import { InstaVM, type Sandbox } from 'instavm';
import type { Floor } from './floor.ts';
import { median, type Row, rssMib } from './report.ts';

const ADDRESS = '127.0.1.1';
/** What a program in the guest connects to: an address would be its own loopback. */
const HOST = 'bench.test';
const BYTES = 256 * 1024 * 1024;
const ROUNDS = 3;
const IDLE_CONNECTIONS = 1_000;
const DECISIONS = 20_000;
const RULES = 10_000;

/** Reads all of one download. @returns ms, as the program sees them */
const DOWNLOAD = `import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"d")
buffer = bytearray(1 << 20)
began, total = time.monotonic(), 0
while count := s.recv_into(buffer): total += count
assert total == int(sys.argv[3]), total
print((time.monotonic() - began) * 1000)`;

/** Connects again and again, to a listener of its own and through the gateway. @returns median ms of both */
const CONNECT = `import socket, statistics, sys, threading, time
own = socket.create_server(("127.0.0.1", 0))
def accept():
    while True: own.accept()[0].close()
threading.Thread(target=accept, daemon=True).start()
def timed(address):
    began = time.perf_counter()
    s = socket.create_connection(address)
    ms = (time.perf_counter() - began) * 1000
    s.close()
    return ms
address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), socket.AF_INET)[0][4]
ours, theirs = [], []
for _ in range(200):
    theirs.append(timed(own.getsockname()))
    ours.append(timed(address))
print(statistics.median(ours), statistics.median(theirs))`;

/** Opens connections and keeps them. */
const HOLD = `import socket, sys, time
held = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
print(len(held), flush=True)
sys.stdin.read()`;

export async function egressRows(floor: Floor): Promise<Row[]> {
  const [outside, dns] = [await openOutside(), await openDns()];
  const { port } = outside.address() as AddressInfo;
  const daemon = await startTestDaemon({
    vmm: 'qemu',
    env: { INSTAVM_EGRESS_SITE_CIDRS: `${ADDRESS}/32`, INSTAVM_EGRESS_DNS: `127.0.0.1:${dns.address().port}` },
  });
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  try {
    const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
    const policy = { allowHttp: false, allowHttps: false, allowPackageManagers: false, allowedCidrs: [] };
    await sandbox.setEgressPolicy({ ...policy, allowedDomains: [HOST] });
    // First: a daemon that has carried much has free memory that would be taken for nothing.
    const idleRow = await idle(sandbox, daemon.pid, port);
    return [await download(sandbox, floor, port), await connects(sandbox, port), decision(), idleRow];
  } finally {
    client.close();
    await daemon.stop();
    outside.close();
    dns.close();
  }
}

/** Sends `BYTES` to whoever says "d", and keeps everybody else. */
async function openOutside(): Promise<Server> {
  const chunk = Buffer.alloc(256 * 1024);
  const server = createServer((socket: Socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      let left = BYTES;
      const more = (): void => {
        while (left > 0) {
          left -= chunk.length;
          if (!socket.write(chunk)) return void socket.once('drain', more);
        }
        socket.end();
      };
      more();
    });
  });
  server.listen(0, ADDRESS, 4096);
  await once(server, 'listening');
  return server;
}

/** Knows one name. */
async function openDns(): Promise<UdpSocket> {
  const socket = createSocket('udp4');
  socket.on('message', (query, { port, address }) => {
    const { id = 0, questions = [] } = decode(query);
    const isKnown = questions[0]?.name === HOST;
    const answers = questions[0]?.type === 'A' && isKnown ? [{ type: 'A' as const, name: HOST, data: ADDRESS }] : [];
    socket.send(encode({ type: 'response', id, flags: isKnown ? 0x0180 : 0x0183, questions, answers }), port, address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return socket;
}

async function python(sandbox: Sandbox, program: string, ...args: (string | number)[]): Promise<number[]> {
  const { exitCode, stdoutText, stderrText } = await sandbox.run(['python3', '-c', program, ...args.map(String)], {
    timeoutMs: 300_000,
  });
  if (exitCode !== 0) throw new Error(stderrText);
  return stdoutText.trim().split(/\s+/).map(Number);
}

async function download(sandbox: Sandbox, floor: Floor, port: number): Promise<Row> {
  const direct = await floor.clone();
  const rate = (ms: number): number => BYTES / 1e6 / (ms / 1000);
  const [ours, raw]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    // What goes into the guest is what the host sends over the bare port.
    raw.push(rate(await direct.rawUpload(BYTES)));
    const [ms = Number.NaN] = await python(sandbox, DOWNLOAD, HOST, port, BYTES);
    ours.push(rate(ms));
  }
  await direct.end();
  return {
    name: 'download through the gateway',
    measured: `${median(ours).toFixed(0)} MB/s`,
    floor: `${median(raw).toFixed(0)} MB/s raw`,
    ratio: (median(ours) / median(raw)).toFixed(2),
    target: '≥ 0.6 of raw',
  };
}

async function connects(sandbox: Sandbox, port: number): Promise<Row> {
  const [ours = Number.NaN, theirs = Number.NaN] = await python(sandbox, CONNECT, HOST, port);
  return {
    name: 'connect through the gateway, over the guest’s loopback',
    measured: `${ours.toFixed(2)} ms`,
    floor: `${theirs.toFixed(2)} ms`,
    ratio: `+${(ours - theirs).toFixed(2)} ms`,
    target: '≤ +5 ms',
  };
}

function decision(): Row {
  const allowedDomains = Array.from({ length: RULES }, (_, n) => `${n % 2 === 0 ? '*.' : ''}host${n}.example.com`);
  const allowedCidrs = Array.from({ length: RULES }, (_, n) => `10.${n >> 8}.${n & 255}.0/24`);
  const flags = { allowHttp: false, allowHttps: false, allowPublicRepos: false };
  const policy = compilePolicy({ ...flags, allowedDomains, allowedCidrs }, []);
  const started = performance.now();
  let allowed = 0;
  for (let n = 0; n < DECISIONS; n++) {
    const byName = policy.decideName(`a.host${n % RULES}.example.com`, 443);
    if (byName.allowed !== false && policy.decideAddress('93.184.216.34', 443, byName).allowed) allowed++;
  }
  const us = ((performance.now() - started) * 1000) / DECISIONS;
  if (allowed !== DECISIONS / 2) throw new Error(`${allowed} decisions allowed something`);
  const name = `policy decision, ${RULES} domains and ${RULES} ranges`;
  return { name, measured: `${us.toFixed(1)} µs`, floor: '', ratio: '', target: '≤ 20 µs' };
}

async function idle(sandbox: Sandbox, daemonPid: number, port: number): Promise<Row> {
  const before = await rssMib(daemonPid);
  const held = await sandbox.exec(['python3', '-c', HOLD, HOST, String(port), String(IDLE_CONNECTIONS)]);
  const { value } = await held.stdout[Symbol.asyncIterator]().next();
  if (Number(Buffer.from(value ?? []).toString()) !== IDLE_CONNECTIONS) throw new Error('not all connections opened');
  const grown = (await rssMib(daemonPid)) - before;
  held.close();
  return {
    name: `daemon memory of ${IDLE_CONNECTIONS} idle outbound connections`,
    measured: `${grown.toFixed(0)} MiB`,
    floor: '',
    ratio: '',
    target: '≤ 50 MB',
  };
}
