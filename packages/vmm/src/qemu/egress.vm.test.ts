import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { AgentClient } from '@instavm/agent-client';
import { type MicroVm, newIncarnationId } from '@instavm/core';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { DOWNLOAD_BYTES, DOWNLOAD_SHA256, TestGateway } from '../test/egress-gateway.ts';
import { type Backend, makeBackend } from './test/backend.ts';

/** A guest on a busy host takes its time. */
const LONG = { timeout: 60_000 };

let backend: Backend;
let vm: MicroVm;
let agent: AgentClient;
let channel: Duplex;
const gateway = new TestGateway();

beforeAll(async () => {
  backend = await makeBackend();
  const [{ vmm }, template] = [backend, await backend.template()];
  vm = await vmm.restore(template, newIncarnationId());
  agent = await AgentClient.open(await vm.connect('control'), 60_000);
  const unixTimeNs = BigInt(Date.now()) * 1_000_000n;
  const identity = { hostname: 'mybox', machineId: '0'.repeat(32), entropy: randomBytes(64) };
  await agent.lifecycle.personalize({ unixTimeNs, ...identity });
  await connectHost();
});

afterAll(async () => {
  agent?.close();
  await vm?.kill();
  expect(await backend.leftovers()).toEqual([]);
  await backend.close();
});

beforeEach(() => {
  gateway.asked.length = 0;
  gateway.lookups.length = 0;
  gateway.cancelled.length = 0;
});

async function connectHost(): Promise<void> {
  channel = await vm.connect('egress');
  await gateway.serve(channel);
}

async function run(
  command: { case: 'script'; value: string } | { case: 'argv'; value: { args: string[] } },
): Promise<string> {
  async function* messages() {
    yield { message: { case: 'start', value: { command } } } as const;
  }
  let text = '';
  let code: number | undefined;
  for await (const { event } of agent.exec.run(messages())) {
    if (event.case === 'stdout' || event.case === 'stderr') text += Buffer.from(event.value).toString();
    else if (event.case === 'exit') code = event.value.code;
  }
  if (code !== 0) throw new Error(`exit code ${code}: ${text}`);
  return text.trim();
}

const sh = (script: string): Promise<string> => run({ case: 'script', value: script });

/** Every test's Python begins with this. */
const PRELUDE = `
import errno, hashlib, json, os, socket, struct, sys, threading, time
def outcome(call, *arguments):
    began = time.monotonic()
    try:
        result = call(*arguments)
    except OSError as error:
        result = errno.errorcode.get(error.errno, repr(error)) if not isinstance(error, socket.gaierror) else 'EAI%d' % error.errno
    assert time.monotonic() - began < 15, 'slow'
    return result
def connect(host, port, timeout=60):
    return socket.create_connection((host, port), timeout=timeout)
def peer(host, port):
    with connect(host, port) as s: return s.getpeername()[0]
def read_all(s):
    parts = []
    while part := s.recv(1 << 20): parts.append(part)
    return b''.join(parts)
def query(name, kind, server='127.0.0.1', tcp=False, edns=0):
    labels = b''.join(bytes([len(label)]) + label.encode() for label in name.split('.'))
    message = struct.pack('>6H', 77, 0x100, 1, 0, 0, bool(edns)) + labels + struct.pack('>BHH', 0, kind, 1)
    if edns: message += struct.pack('>BHHIH', 0, 41, edns, 0, 0)
    family = socket.AF_INET6 if ':' in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.settimeout(20); s.connect((server, 53))
        s.send((struct.pack('>H', len(message)) if tcp else b'') + message)
        answer = s.recv(4096)[2 if tcp else 0:]
    number, flags, _, answers, _, _ = struct.unpack('>6H', answer[:12])
    assert number == 77 and flags & 0x8000
    return {'rcode': flags & 15, 'answers': answers, 'truncated': bool(flags & 0x200), 'end': answer[-16:].hex()}
`;

async function python<T>(body: string): Promise<T> {
  const text = await run({ case: 'argv', value: { args: ['python3', '-c', `${PRELUDE}${body}`] } });
  return JSON.parse(text) as T;
}

describe('a connection of a program', () => {
  it('reaches the gateway under the name that the program asked for', async () => {
    expect(await sh('curl -sS http://Web.Example.test./')).toBe('reached web.example.test:80');
    expect(await sh('curl -sS http://api.example.test:8080/')).toBe('reached api.example.test:8080');
  });

  it('reaches the gateway as a literal when the program used an address', async () => {
    expect(await sh("curl -sS http://203.0.113.9/ 'http://[2001:db8::9]:81/'")).toBe(
      'reached 203.0.113.9:80\nreached [2001:db8::9]:81',
    );
  });

  it('fails at once, and with the error of an ordinary network, when the gateway refuses it', async () => {
    const ports = [403, 429, 502, 503, 504, 505];
    const hosts = ['v4.example.test', '203.0.113.9', '2001:db8::9'];
    const outcomes = await python<string[][]>(
      `print(json.dumps([[outcome(peer, host, port) for port in ${JSON.stringify(ports)}] for host in ${JSON.stringify(hosts)}]))`,
    );
    const expected = [...Array(3).fill('ECONNREFUSED'), ...Array(3).fill('EHOSTUNREACH')];
    expect(outcomes).toEqual(hosts.map(() => expected));
    // Happy eyeballs: a name's second address is tried, and neither is waited for.
    expect(await python(`print(json.dumps(outcome(peer, 'both.example.test', 403)))`)).toBe('ECONNREFUSED');
    expect(gateway.asked.filter((asked) => asked === 'both.example.test:403')).toHaveLength(2);
  });

  it('is refused with the right error every time, and asked for once, however soon its program looks', async () => {
    const hosts = ['203.0.113.9', '2001:db8::9'];
    const counts = await python<Record<string, Record<string, number>>>(`
import collections
def refused(host, port):
    with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as s:
        s.settimeout(60)
        error = errno.errorcode.get(s.connect_ex((host, port)), 'connected')
        s.setblocking(False)
        # What is queued beside the error wakes the program before the error is there.
        return error + ', ' + str(outcome(s.recv, 1, socket.MSG_ERRQUEUE))
print(json.dumps({port: collections.Counter(refused(h, port) for h in ${JSON.stringify(hosts)} for _ in range(40)) for port in [403, 502, 504, 505]}))`);
    const [refused, unreachable] = ['ECONNREFUSED, EAGAIN', 'EHOSTUNREACH, EAGAIN'].map((what) => ({ [what]: 80 }));
    expect(counts).toEqual({ 403: refused, 502: refused, 504: unreachable, 505: unreachable });
    expect(gateway.asked).toHaveLength(320);
  });

  it('to a synthetic address that no name is bound to is not asked for', async () => {
    const hosts = ['198.18.200.200', 'fd69:6e73:7461:766d::c8c8'];
    const outcomes = await python(`print(json.dumps([outcome(peer, h, 80) for h in ${JSON.stringify(hosts)}]))`);
    expect(outcomes).toEqual(['EHOSTUNREACH', 'EHOSTUNREACH']);
    expect(gateway.asked).toEqual([]);
  });

  it('that its program gave up is given up at the gateway too', async () => {
    expect(await python(`print(json.dumps(outcome(peer, '203.0.113.9', 80)))`)).toBe('203.0.113.9');
    const outcomes = `s = socket.socket(); s.settimeout(0.2); print(json.dumps(outcome(s.connect, ('203.0.113.9', 20))))`;
    expect(await python(outcomes)).toMatch(/timed out/);
    await vi.waitFor(() => expect(gateway.cancelled).toEqual(['203.0.113.9:20']), LONG);
  });

  it('may be closed one way while the other goes on, and reset either way', async () => {
    const digests = await python<[string, string]>(`
data = os.urandom(3_000_000)
with connect('half.example.test', 9) as s:
    s.sendall(data); s.shutdown(socket.SHUT_WR)
    digest = read_all(s).decode()
print(json.dumps([digest, hashlib.sha256(data).hexdigest()]))`);
    expect(digests[0]).toBe(digests[1]);

    expect(
      await python(`
s = connect('reset.example.test', 21); s.sendall(b'x')
print(json.dumps(outcome(s.recv, 1)))`),
    ).toBe('ECONNRESET');
    await python(`
s = connect('reset.example.test', 7); s.sendall(b'x'); s.recv(1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()
print(json.dumps(None))`);
    await vi.waitFor(() => expect(gateway.cancelled).toContain('reset.example.test:7'), LONG);
  });

  it('carries a large download, and stops the gateway while the program does not read', async () => {
    const result = await python<{ early: number; bytes: number; digest: string }>(`
stalled = connect('stalled.example.test', 19)
with connect('download.example.test', 19) as s: data = read_all(s)
stalled.close()
print(json.dumps({'bytes': len(data), 'digest': hashlib.sha256(data).hexdigest()}))`);
    expect(result).toEqual({ bytes: DOWNLOAD_BYTES, digest: DOWNLOAD_SHA256 });
    await vi.waitFor(() => expect(gateway.open).toEqual([]), LONG);
  });

  it('is one of 200 at once, and of 500 in a row, and nothing of them stays', async () => {
    const descriptors = async (): Promise<number> => Number(await sh('ls /proc/1/fd | wc -l'));
    const before = await descriptors();
    const result = await python<{ echoed: number; inARow: number }>(`
echoed = []
def one(number):
    with connect('many.example.test', 7) as s:
        s.sendall(b'%d' % number); echoed.append(int(s.recv(10)))
threads = [threading.Thread(target=one, args=(number,)) for number in range(200)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for number in range(500): peer('203.0.113.7', 7)
print(json.dumps({'echoed': len(set(echoed)), 'inARow': number + 1}))`);
    expect(result).toEqual({ echoed: 200, inARow: 500 });
    await vi.waitFor(() => expect(gateway.open).toEqual([]), LONG);
    await vi.waitFor(async () => expect(await descriptors()).toBeLessThanOrEqual(before), LONG);
  });
});

describe('the DNS server of the guest', () => {
  it('answers names that exist with synthetic addresses, and says so when they, or their records, do not', async () => {
    const result = await python<Record<string, unknown>>(`
print(json.dumps({
  'both': sorted({a[4][0] for a in socket.getaddrinfo('a.example.test', 80)}),
  'v4': sorted({a[4][0] for a in socket.getaddrinfo('v4only.example.test', 80)}),
  'again': sorted({a[4][0] for a in socket.getaddrinfo('A.example.test', 80)}),
  'nx': outcome(socket.getaddrinfo, 'nx.example.test', 80),
  'denied': outcome(peer, 'denied.example.test', 403),
  'nodata': query('v4only.example.test', 28),
  'any': query('a.example.test', 255)['rcode'],
  'https': query('a.example.test', 65),
  'txt': query('a.example.test', 16)['end'][-10:],
  'denied_txt': query('denied.example.test', 16)['rcode'],
}))`);
    const [v4, v6] = result.both as [string, string];
    expect(v4).toMatch(/^198\.18\.\d+\.\d+$/);
    expect(v6).toMatch(/^fd69:6e73:7461:766d::[0-9a-f]+$/);
    expect(result).toMatchObject({ again: [v4, v6], nx: 'EAI-2', denied: 'ECONNREFUSED', any: 5, denied_txt: 5 });
    expect(result.v4).toHaveLength(1);
    expect(result.nodata).toMatchObject({ rcode: 0, answers: 0 });
    expect(result.https).toMatchObject({ rcode: 0, answers: 0 });
    expect(Buffer.from(result.txt as string, 'hex').toString()).toBe('hello');
    expect(gateway.asked).toContain('denied.example.test:403');
    expect(gateway.lookups.filter((lookup) => lookup.endsWith(' 65'))).toEqual([]);
    expect(await sh(`getent hosts ${v4}; getent hosts ${v6}`)).toMatch(
      /^\S+\s+a\.example\.test\n\S+\s+a\.example\.test$/,
    );
  });

  it('answers in the name of any other server, over UDP and TCP, and cuts what does not fit', async () => {
    const result = await python<Record<string, { answers: number; truncated: boolean }>>(`
print(json.dumps({
  'v4': query('a.example.test', 1, '8.8.8.8'), 'v6': query('a.example.test', 1, '2001:4860:4860::8888'),
  'tcp': query('a.example.test', 1, '8.8.8.8', tcp=True), 'own': query('a.example.test', 1, '::1', tcp=True),
  'large': query('large.example.test', 16), 'edns': query('large.example.test', 16, edns=4096),
  'largetcp': query('large.example.test', 16, tcp=True),
}))`);
    for (const which of ['v4', 'v6', 'tcp', 'own'])
      expect(result[which], which).toMatchObject({ rcode: 0, answers: 1, truncated: false });
    for (const which of ['large', 'edns']) expect(result[which], which).toMatchObject({ answers: 0, truncated: true });
    expect(result.largetcp).toMatchObject({ answers: 8, truncated: false });
  });
});

describe('what is not TCP', () => {
  it('is refused at once, while a UDP socket still tells its own address', async () => {
    const result = await python<Record<string, string>>(`
def udp(family, host):
    s = socket.socket(family, socket.SOCK_DGRAM); s.connect((host, 443)); own = s.getsockname()[0]
    return [own, outcome(s.send, b'x'), outcome(socket.socket(family, socket.SOCK_DGRAM).sendto, b'x', (host, 123))]
icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
print(json.dumps({
  'v4': udp(socket.AF_INET, '203.0.113.9'), 'v6': udp(socket.AF_INET6, '2001:db8::9'),
  'icmp': outcome(icmp.sendto, b'\\x08\\0\\xf7\\xff\\0\\0\\0\\0', ('203.0.113.9', 0)),
}))`);
    expect(result).toEqual({
      v4: ['198.19.255.1', 'EHOSTUNREACH', 'EHOSTUNREACH'],
      v6: ['fd69:6e73:7461:766d:ffff::1', 'EHOSTUNREACH', 'EHOSTUNREACH'],
      icmp: 'EHOSTUNREACH',
    });
  });
});

describe('what stays in the guest', () => {
  it('is not touched: both loopback addresses, its own name and address, /etc/hosts', async () => {
    const result = await python<string[]>(`
servers = [socket.create_server(('0.0.0.0', 8111)), socket.create_server(('::1', 8111), family=socket.AF_INET6)]
open('/etc/hosts', 'a').write('127.0.0.9 mine.example.test\\n')
hosts = ['127.0.0.1', '127.1.2.3', '::1', 'localhost', socket.gethostname(), '198.19.255.1', 'mine.example.test']
print(json.dumps([outcome(peer, host, 8111) for host in hosts]))`);
    for (const outcome of result) expect(outcome).toMatch(/^(127\.|::1$|198\.19\.255\.1$)/);
    expect(result).toHaveLength(7);
    expect([gateway.asked, gateway.lookups]).toEqual([[], []]);
  });

  it('is answered locally when a program asks the DNS server itself', async () => {
    const result = await python<Record<string, string>>(`
print(json.dumps({'a': query('localhost', 1)['end'][-8:], 'aaaa': query('x.localhost', 28)['end'], 'own': query(socket.gethostname(), 1)['end'][-8:]}))`);
    expect(result).toEqual({ a: '7f000001', aaaa: '00000000000000000000000000000001', own: '7f000101' });
    expect(gateway.lookups).toEqual([]);
  });

  it('is so in a network namespace of its own, whose other packets leave like those of any program', async () => {
    const script = `
ip netns add box && ip link add outer type veth peer name inner netns box
ip addr add 10.9.0.1/24 dev outer && ip link set outer up
ip -n box addr add 10.9.0.2/24 dev inner && ip -n box link set inner up && ip -n box route add default via 10.9.0.1
python3 -m http.server --bind 10.9.0.1 8112 --directory /etc/apt >/dev/null 2>&1 & server=$!
trap 'kill $server' EXIT
until curl -s -o /dev/null http://10.9.0.1:8112/; do sleep 0.1; done
mkdir -p /etc/netns/box && echo nameserver 203.0.113.53 > /etc/netns/box/resolv.conf
ip netns exec box curl -sS -o /dev/null -w '%{http_code} ' http://10.9.0.1:8112/
ip netns exec box curl -sS http://boxed.example.test/
ip netns exec box python3 -c "import socket; print(*[socket.socket().connect_ex(('203.0.113.9', port)) for port in (403, 504)])"`;
    // The way to it is too narrow for the message that means "unreachable": both are ECONNREFUSED.
    expect(await sh(script)).toBe('200 reached boxed.example.test:80\n111 111');
  });
});

describe('the usual clients', () => {
  it('get through', async () => {
    const script = `
wget -qO- http://wget.example.test/
python3 -c 'import urllib.request; print(urllib.request.urlopen("http://urllib.example.test/").read().decode(), end="")'
node -e 'require("http").get("http://node.example.test/", (r) => r.pipe(process.stdout))'
exec 3<>/dev/tcp/bash.example.test/80; echo hello >&3; tail -n 1 <&3`;
    const names = ['wget', 'urllib', 'node', 'bash'];
    expect((await sh(script)).split('\n')).toEqual(names.map((name) => `reached ${name}.example.test:80`));
  });
});

describe('a guest without a host', () => {
  it('fails at once, ends the flows of the host that went, and works with the next host', async () => {
    const flow = python(`
s = connect('flow.example.test', 7)
print(json.dumps(outcome(s.recv, 1)))`);
    await vi.waitFor(() => expect(gateway.asked).toContain('flow.example.test:7'), LONG);
    channel.destroy();
    expect(await flow).toBe('ECONNRESET');
    const outcomes = `print(json.dumps([outcome(peer, '203.0.113.9', 80), outcome(peer, '2001:db8::9', 80), outcome(peer, 'a.example.test', 80)]))`;
    expect(await python(outcomes)).toEqual(['ENETUNREACH', 'ENETUNREACH', 'EAI-3']);
    await connectHost();
    expect(await sh('curl -sS http://back.example.test/')).toBe('reached back.example.test:80');
    // A host that comes before the guest saw the other go.
    channel.destroy();
    await connectHost();
    expect(await sh('curl -sS http://again.example.test/')).toBe('reached again.example.test:80');
  });
});

describe('root that flushes the rules', () => {
  it('has lost its network, and nothing else', async () => {
    await sh('nft flush ruleset');
    expect(await python(`print(json.dumps(outcome(connect, '203.0.113.9', 80, 1)))`)).toMatch(/timed out/);
    expect(gateway.asked).toEqual([]);
    expect(await sh('echo alive')).toBe('alive');
  });
});
