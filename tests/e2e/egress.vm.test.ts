/** What leaves a sandbox, and what does not: each scenario asserted from inside the guest and in the log. The outside is on loopback (`egress/outside.ts`). */
import type { Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PORTS, PUBLIC } from './egress/outside.ts';
import { type Entry, type Outcome, type Policy, type Probe, World } from './egress/world.ts';

const ROWS_WITHIN_MS = 30_000;
/** Two look-ups that fail at the guest's own deadline take ten seconds. */
const HANGS_MS = 60_000;

let world: World;
let sandbox: Sandbox;

beforeAll(async () => {
  world = await World.open(() => ({ INSTAVM_EGRESS_REGISTRIES: 'ports.test, *.wild.test' }));
  sandbox = await world.sandbox();
});
afterAll(() => world?.close());

type Scenario = {
  readonly does: string;
  readonly probe: Probe;
  readonly ends: unknown;
  /** What its row in the log has. */
  readonly logged?: Partial<Entry>;
  /** Names that nobody may have been asked about. */
  readonly asksNobody?: string;
};

/** One policy, one Python: every scenario's outcome is looked at by itself. */
function scenarios(title: string, policy: Partial<Policy>, all: readonly Scenario[]): void {
  describe(title, () => {
    let outcomes: Outcome[] = [];
    let rows: Entry[] = [];
    let asked: string[] = [];
    beforeAll(async () => {
      await world.setPolicy(sandbox, policy);
      const after = (await world.log(sandbox)).at(-1)?.id ?? 0;
      world.outside.asked.length = 0;
      outcomes = await world.probe(
        sandbox,
        all.map((each) => each.probe),
      );
      asked = [...world.outside.asked];
      const isComplete = (): boolean =>
        all.every(({ logged }) => logged === undefined || rows.some((row) => matches(row, logged)));
      // Rows are written a moment later; which of them is missing is for the tests to say.
      for (const until = Date.now() + ROWS_WITHIN_MS; !isComplete() && Date.now() < until; ) {
        rows = await world.log(sandbox, `&after=${after}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    });
    for (const [index, { does, ends, logged, asksNobody }] of all.entries()) {
      it(does, () => {
        const { result, ms } = outcomes[index] ?? { result: 'nothing', ms: 0 };
        expect(result).toEqual(ends);
        // Nothing here hangs, whatever it meets.
        expect(ms).toBeLessThan(HANGS_MS);
        if (logged !== undefined) expect(rows).toContainEqual(expect.objectContaining(logged));
        if (asksNobody !== undefined) expect(asked.filter((question) => question.includes(asksNobody))).toEqual([]);
      });
    }
  });
}

const matches = (row: Entry, wanted: Partial<Entry>): boolean =>
  Object.entries(wanted).every(([name, value]) => row[name as keyof Entry] === value);

const denied = (host: string, port: number, rule: string): Partial<Entry> => ({
  kind: 'connect',
  host,
  port,
  allowed: false,
  rule,
  outcome: 'denied',
});
const closed = (host: string, port: number, rule: string): Partial<Entry> => ({
  kind: 'connect',
  host,
  port,
  allowed: true,
  rule,
  outcome: 'closed',
});

scenarios('with nothing allowed', {}, [
  {
    does: 'a name is refused at once',
    probe: ['connect', 'allowed.test', 443],
    ends: 'ECONNREFUSED',
    logged: denied('allowed.test', 443, 'default_deny'),
    asksNobody: 'allowed.test',
  },
  {
    does: 'an IPv6 address is refused at once',
    probe: ['connect', '2001:db8::1', 443],
    ends: 'ECONNREFUSED',
    logged: denied('2001:db8::1', 443, 'special_address:reserved'),
  },
  {
    does: 'data cannot leave in a name that is looked up',
    probe: ['lookup', 'c2VjcmV0.tunnel.test', 16],
    ends: 'REFUSED 0',
    logged: { kind: 'lookup', host: 'c2vjcmv0.tunnel.test', allowed: false },
    asksNobody: 'tunnel',
  },
  {
    does: 'nor as an address look-up',
    probe: ['resolve', 'c2VjcmV0.address-tunnel.test'],
    ends: 'resolved',
    asksNobody: 'tunnel',
  },
  { does: 'UDP is unreachable at once', probe: ['udp', '192.0.2.1', 123], ends: 'EHOSTUNREACH' },
  { does: 'ICMP is unreachable at once', probe: ['icmp', '192.0.2.1'], ends: 'EHOSTUNREACH' },
  {
    does: 'the metadata address of clouds is refused',
    probe: ['connect', '169.254.169.254', 80],
    ends: 'ECONNREFUSED',
    logged: denied('169.254.169.254', 80, 'special_address:metadata'),
  },
]);

scenarios(
  'with one name allowed',
  {
    allowed_domains: [
      'allowed.test',
      'ports.test:8080',
      'loop.test',
      'private.test',
      'rebind.test',
      'metadata.test',
      'mapped.test',
      'nat64.test',
      'mixed.test',
      'alias.test',
      'alias-private.test',
      'six.test',
      'both.test',
      'silent.test',
      'nx.test',
      'empty.test',
      'text.test',
      'Bücher.TEST.',
    ],
  },
  [
    {
      does: 'HTTP to it works',
      probe: ['http', 'allowed.test'],
      ends: 'reached allowed.test',
      logged: { ...closed('allowed.test', 80, 'allowed_domains:allowed.test'), address: PUBLIC },
    },
    {
      does: 'HTTPS to it works',
      probe: ['tls', 'allowed.test'],
      ends: 'reached allowed.test',
      logged: closed('allowed.test', 443, 'allowed_domains:allowed.test'),
    },
    {
      does: 'any other port of it works',
      probe: ['after_first_byte', 'allowed.test', PORTS.echo],
      ends: 'answered',
      logged: {
        ...closed('allowed.test', PORTS.echo, 'allowed_domains:allowed.test'),
        bytes_sent: 1,
        bytes_received: 1,
      },
    },
    {
      does: 'case and the last dot do not matter',
      probe: ['http', 'ALLOWED.Test.', 'allowed.test'],
      ends: 'reached allowed.test',
    },
    {
      does: 'an international name is the same in both forms',
      probe: ['http', 'xn--bcher-kva.test'],
      ends: 'reached xn--bcher-kva.test',
    },
    {
      does: 'a rule with a port allows that port',
      probe: ['http', 'ports.test', 'ports.test', PORTS.web],
      ends: 'reached ports.test',
      logged: closed('ports.test', PORTS.web, 'allowed_domains:ports.test:8080'),
    },
    {
      does: 'and no other',
      probe: ['connect', 'ports.test', 80],
      ends: 'ECONNREFUSED',
      logged: denied('ports.test', 80, 'default_deny'),
    },
    {
      does: 'another name on the same address is refused',
      probe: ['connect', 'other.test', 80],
      ends: 'ECONNREFUSED',
      logged: denied('other.test', 80, 'default_deny'),
      asksNobody: 'other.test',
    },
    {
      does: 'another Host in its request cuts the connection',
      probe: ['http', 'allowed.test', 'other.test'],
      ends: 'ECONNRESET',
      logged: denied('allowed.test', 80, 'host_mismatch'),
    },
    {
      does: 'another Host in its second request too',
      probe: ['http_twice', 'allowed.test', 'other.test'],
      ends: 'ECONNRESET',
      logged: denied('allowed.test', 80, 'host_mismatch'),
    },
    {
      does: 'another SNI cuts the connection',
      probe: ['tls', 'allowed.test', 'other.test'],
      ends: 'ECONNRESET',
      logged: denied('allowed.test', 443, 'host_mismatch'),
    },
    {
      does: 'TLS without SNI can only mean it',
      probe: ['tls_without_sni', 'allowed.test'],
      ends: 'reached allowed.test',
    },
    {
      does: 'what is no HTTP has no business on port 80',
      probe: ['raw', 'allowed.test', 80, 'EHLO other.test\r\n\r\n'],
      ends: 'ECONNRESET',
      logged: denied('allowed.test', 80, 'host_mismatch'),
    },
    {
      does: 'a name that leads to loopback is refused',
      probe: ['connect', 'loop.test', 80],
      ends: 'ECONNREFUSED',
      logged: { ...denied('loop.test', 80, 'special_address:loopback'), address: '127.0.0.1' },
    },
    {
      does: 'a name that leads elsewhere a moment after it was looked up is refused',
      probe: ['connect', 'rebind.test', 80],
      ends: 'ECONNREFUSED',
      logged: denied('rebind.test', 80, 'special_address:loopback'),
    },
    {
      does: 'a name that leads to private space is refused',
      probe: ['connect', 'private.test', 80],
      ends: 'ECONNREFUSED',
      logged: denied('private.test', 80, 'special_address:private'),
    },
    {
      does: 'a name that leads to the metadata address is refused',
      probe: ['connect', 'metadata.test', 80],
      ends: 'ECONNREFUSED',
      logged: denied('metadata.test', 80, 'special_address:metadata'),
    },
    {
      does: 'a mapped IPv4 address hides nothing',
      probe: ['connect', 'mapped.test', 80],
      ends: 'ECONNREFUSED',
      logged: denied('mapped.test', 80, 'special_address:ipv4_mapped'),
    },
    {
      does: 'nor does NAT64',
      probe: ['connect', 'nat64.test', 80],
      ends: 'ECONNREFUSED',
      logged: denied('nat64.test', 80, 'special_address:nat64'),
    },
    {
      does: 'of several addresses only the public one is used',
      probe: ['http', 'mixed.test'],
      ends: 'reached mixed.test',
      logged: { host: 'mixed.test', address: PUBLIC, outcome: 'closed' },
    },
    {
      does: 'an alias is what it was asked for, wherever it leads',
      probe: ['http', 'alias.test'],
      ends: 'reached alias.test',
      logged: closed('alias.test', 80, 'allowed_domains:alias.test'),
    },
    {
      does: 'an alias that leads to private space is refused',
      probe: ['connect', 'alias-private.test', 80],
      ends: 'ECONNREFUSED',
      logged: denied('alias-private.test', 80, 'special_address:private'),
    },
    {
      does: 'a name with IPv6 alone works',
      probe: ['http', 'six.test'],
      ends: 'reached six.test',
      logged: { host: 'six.test', address: '::1', outcome: 'closed' },
    },
    { does: 'a name with both works', probe: ['http', 'both.test'], ends: 'reached both.test' },
    {
      does: 'a port where nobody listens refuses',
      probe: ['connect', 'allowed.test', PORTS.closed],
      ends: 'ECONNREFUSED',
      logged: { host: 'allowed.test', port: PORTS.closed, allowed: true, outcome: 'failed' },
    },
    {
      does: 'a server that resets is seen to reset',
      probe: ['after_first_byte', 'allowed.test', PORTS.resetter],
      ends: 'ECONNRESET',
      logged: { host: 'allowed.test', port: PORTS.resetter, outcome: 'failed' },
    },
    { does: 'a server that is slow is waited for', probe: ['first_bytes', 'allowed.test', PORTS.slow, 5], ends: 5 },
    {
      does: 'a program that ends its side still gets the answer',
      probe: ['half_close', 'allowed.test', PORTS.sink, 1_048_576],
      ends: 1_048_576,
      logged: { host: 'allowed.test', port: PORTS.sink, bytes_sent: 1_048_576, bytes_received: 7, outcome: 'closed' },
    },
    { does: 'a name that does not exist does not exist', probe: ['resolve', 'nx.test'], ends: 'NXDOMAIN' },
    { does: 'a name without addresses has none', probe: ['resolve', 'empty.test'], ends: 'NODATA' },
    {
      does: 'a name server that is silent is not waited for for ever',
      probe: ['resolve', 'silent.test'],
      ends: 'EAI_AGAIN',
    },
    { does: 'other records of it are answered', probe: ['lookup', 'text.test', 16], ends: 'NOERROR 1' },
    { does: 'hints that would lead past the name are not', probe: ['lookup', 'text.test', 65], ends: 'NOERROR 0' },
  ],
);

scenarios('with a wildcard allowed', { allowed_domains: ['*.wild.test'] }, [
  {
    does: 'a name below it works',
    probe: ['http', 'a.wild.test'],
    ends: 'reached a.wild.test',
    logged: closed('a.wild.test', 80, 'allowed_domains:*.wild.test'),
  },
  { does: 'and one further below', probe: ['http', 'b.a.wild.test'], ends: 'reached b.a.wild.test' },
  {
    does: 'the name itself is another thing',
    probe: ['connect', 'wild.test', 80],
    ends: 'ECONNREFUSED',
    logged: denied('wild.test', 80, 'default_deny'),
  },
  {
    does: 'and one that only ends alike',
    probe: ['connect', 'notwild.test', 80],
    ends: 'ECONNREFUSED',
    asksNobody: 'notwild',
  },
]);

scenarios('with an address range allowed', { allowed_cidrs: ['127.0.1.0/24', '10.0.0.0/8'] }, [
  {
    does: 'a name that leads into it works',
    probe: ['http', 'allowed.test'],
    ends: 'reached allowed.test',
    logged: closed('allowed.test', 80, 'allowed_cidrs:127.0.1.0/24'),
  },
  { does: 'a name that leads elsewhere is refused', probe: ['connect', 'loop.test', 80], ends: 'ECONNREFUSED' },
  {
    does: 'other records are asked of nobody',
    probe: ['lookup', 'text.test', 16],
    ends: 'REFUSED 0',
    asksNobody: 'TXT',
  },
]);

scenarios('with any web server allowed', { allow_http: true, allow_https: true }, [
  {
    does: 'any name works on port 80',
    probe: ['http', 'other.test'],
    ends: 'reached other.test',
    logged: closed('other.test', 80, 'allow_http'),
  },
  {
    does: 'and on port 443, whatever its SNI',
    probe: ['tls', 'other.test', 'allowed.test'],
    ends: 'reached other.test',
    logged: closed('other.test', 443, 'allow_https'),
  },
  {
    does: 'another port is refused',
    probe: ['connect', 'other.test', PORTS.web],
    ends: 'ECONNREFUSED',
    logged: denied('other.test', PORTS.web, 'default_deny'),
  },
  {
    does: 'private space is refused all the same',
    probe: ['connect', 'private.test', 80],
    ends: 'ECONNREFUSED',
    logged: denied('private.test', 80, 'special_address:private'),
  },
]);

scenarios('with package registries allowed', { allow_public_repos: true }, [
  {
    does: 'one of the list works',
    probe: ['http', 'ports.test'],
    ends: 'reached ports.test',
    logged: closed('ports.test', 80, 'allow_public_repos:ports.test'),
  },
  { does: 'on the ports of the web alone', probe: ['connect', 'ports.test', PORTS.web], ends: 'ECONNREFUSED' },
  { does: 'and nothing else', probe: ['connect', 'allowed.test', 443], ends: 'ECONNREFUSED' },
]);
