/** A guest's look-ups: truthful for what is allowed, and silent to the world about all else. */
import { type Answer, decode, encode, type Packet } from 'dns-packet';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lookUp } from '../src/gateway/lookup.ts';
import { Resolver } from '../src/index.ts';
import { addressesOf, DnsServer } from './support/dns-server.ts';
import { policyOf, startRig, until } from './support/rig.ts';

const rcodeOf = (packet: Packet): string => (packet as unknown as { rcode: string }).rcode;
const dataOf = (packet: Packet): unknown[] =>
  (packet.answers ?? []).map((answer) => ('data' in answer ? answer.data : undefined));

/** As the clock of a guest that is as busy: what a busy machine takes from this process does not count. */
async function ran(ms: number): Promise<string> {
  for (let left = ms; left > 0; left -= 50) await new Promise((resolve) => setTimeout(resolve, 50));
  return `nothing in ${ms} ms`;
}

const ALLOWED = { allowedDomains: ['*.test'] };

describe('a look-up of an allowed name', () => {
  it('answers its addresses, whatever they are: they are judged when they are dialled', async () => {
    const { guest, dns, records } = await startRig({ policy: ALLOWED });
    dns.host('a.test', '10.0.0.1', '93.184.216.34', '2001:db8::1');
    const { status, packet } = await guest.lookUp('a.test', 'A');
    expect(status).toBe(200);
    expect([packet.id, rcodeOf(packet), dataOf(packet)]).toEqual([7, 'NOERROR', ['10.0.0.1', '93.184.216.34']]);
    expect(dataOf((await guest.lookUp('A.TEST', 'AAAA')).packet)).toEqual(['2001:db8::1']);
    expect(records).toEqual([]);
  });

  it('tells no such name, a name without such records, and failing servers apart', async () => {
    const { guest, dns } = await startRig({ policy: ALLOWED });
    dns.host('v4.test', '192.0.2.1');
    dns.zones.set('empty.test', []);
    dns.zones.set('broken.test', 'servfail');
    const rcode = async (name: string, type: string) => rcodeOf((await guest.lookUp(name, type)).packet);
    expect(await rcode('none.test', 'A')).toBe('NXDOMAIN');
    expect(await rcode('v4.test', 'AAAA')).toBe('NOERROR');
    expect(await rcode('empty.test', 'A')).toBe('NOERROR');
    expect(await rcode('broken.test', 'A')).toBe('SERVFAIL');
    expect(await rcode('none.test', 'TXT')).toBe('NXDOMAIN');
    expect(await rcode('empty.test', 'MX')).toBe('NOERROR');
    expect(await rcode('empty.test', 'HTTPS')).toBe('NOTIMP');
  });

  it('answers other records as they are', async () => {
    const { guest, dns } = await startRig({ policy: ALLOWED });
    const name = 'rich.test';
    const answers = [
      { type: 'TXT', name, ttl: 0, data: [Buffer.from('one'), Buffer.from('two')] },
      { type: 'MX', name, ttl: 0, data: { preference: 10, exchange: 'mail.test' } },
      { type: 'SRV', name, ttl: 0, data: { priority: 1, weight: 2, port: 3, target: 'srv.test' } },
      { type: 'NS', name, ttl: 0, data: 'ns.test' },
      { type: 'CAA', name, ttl: 0, data: { flags: 0, tag: 'issue', value: 'ca.test' } },
    ] as Answer[];
    for (const answer of answers) {
      dns.zones.set(name, [answer]);
      const { packet } = await guest.lookUp(name, answer.type);
      expect(packet.answers).toMatchObject([{ type: answer.type, name, ttl: 5 }]);
      // Also Buffers, and only what was sent.
      expect(dataOf(packet)).toMatchObject(dataOf({ answers: [answer] }) as object[]);
    }
  });

  it('answers the addresses at the end of a CNAME, and those of now when they change', async () => {
    const { guest, dns } = await startRig({ policy: ALLOWED });
    const chain = (address: string): Answer[] => [
      { type: 'CNAME', name: 'www.test', ttl: 300, data: 'cdn.elsewhere' },
      ...addressesOf('cdn.elsewhere', [address]),
    ];
    dns.zones.set('www.test', chain('192.0.2.1'));
    expect(dataOf((await guest.lookUp('www.test', 'A')).packet)).toEqual(['192.0.2.1']);
    dns.zones.set('www.test', chain('192.0.2.2'));
    expect(dataOf((await guest.lookUp('www.test', 'A')).packet)).toEqual(['192.0.2.2']);
  });

  it('is a failure when the answer is garbage', async () => {
    const { guest, dns } = await startRig({ policy: ALLOWED });
    dns.zones.set('a.test', 'garbage');
    expect(rcodeOf((await guest.lookUp('a.test', 'A')).packet)).toBe('SERVFAIL');
  });
});

describe('a look-up that no rule allows', () => {
  it('is refused and written down, and nobody is asked', async () => {
    const { guest, dns, records } = await startRig({ policy: { allowedDomains: ['ok.test'] } });
    for (const [name, type] of [
      ['c2VjcmV0.evil.test', 'A'],
      ['c2VjcmV0.evil.test', 'TXT'],
      ['not a name.test', 'A'],
    ] as const) {
      const answer = await guest.lookUp(name, type);
      expect(answer).toMatchObject({ status: 200, reason: 'egress_denied', rule: 'default_deny' });
      expect(rcodeOf(answer.packet)).toBe('REFUSED');
    }
    expect(dns.queries).toEqual([]);
    expect(records).toHaveLength(3);
    expect(records[0]).toMatchObject({ kind: 'lookup', host: 'c2vjcmv0.evil.test', port: null, allowed: false });
  });

  it('of records is refused when only addresses can be allowed', async () => {
    const { guest, dns } = await startRig({ policy: { allowedCidrs: ['192.0.2.0/24'] } });
    dns.host('a.test', '192.0.2.1');
    expect(dataOf((await guest.lookUp('a.test', 'A')).packet)).toEqual(['192.0.2.1']);
    const asked = dns.queries.length;
    const { packet, reason } = await guest.lookUp('a.test', 'TXT');
    expect([rcodeOf(packet), reason]).toEqual(['REFUSED', 'egress_denied']);
    expect(dns.queries.length).toBe(asked);
  });

  it('follows the policy of now', async () => {
    const { guest, dns, link } = await startRig({ policy: ALLOWED });
    dns.host('a.test', '192.0.2.1');
    expect(rcodeOf((await guest.lookUp('a.test', 'A')).packet)).toBe('NOERROR');
    link.setPolicy(policyOf());
    expect(rcodeOf((await guest.lookUp('a.test', 'A')).packet)).toBe('REFUSED');
  });
});

describe('a query', () => {
  const question = { type: 'A', name: 'a.test' } as const;

  it.each([
    ['empty', Buffer.alloc(0)],
    ['cut short', encode({ type: 'query', id: 1, questions: [question] }).subarray(0, 14)],
    ['a response', encode({ type: 'response', id: 1, questions: [question] })],
    ['without a question', encode({ type: 'query', id: 1 })],
    ['of two questions', encode({ type: 'query', id: 1, questions: [question, question] })],
    ['of another class', encode({ type: 'query', id: 1, questions: [{ ...question, class: 'CH' }] })],
    ['an update', encode({ type: 'query', id: 1, flags: 5 << 11, questions: [question] })],
    ['too long', Buffer.alloc(513)],
    ['much too long', Buffer.alloc(2_000_000)],
  ])('that is %s is malformed, and nobody is asked', async (_what, body) => {
    const { guest, dns, warnings } = await startRig({ policy: ALLOWED });
    expect(await guest.post(body)).toMatchObject({ status: 400, reason: 'malformed_query' });
    expect(dns.queries).toEqual([]);
    expect(warnings).toEqual([]);
  });

  it('that never ends, or that nobody answers, is given up within the patience of a guest; only so many are waited for', async () => {
    const { guest, dns } = await startRig({ policy: ALLOWED });
    dns.zones.set('silent.test', 'silent');
    const impatient = ran(5_000);
    const waiting = Array.from({ length: 63 }, () => guest.post(undefined));
    const silent = guest.lookUp('silent.test', 'A').then(({ packet }) => rcodeOf(packet));
    await until(() => dns.queries.length > 0);
    expect(await guest.post(Buffer.alloc(12))).toMatchObject({ status: 429, reason: 'too_many_lookups' });

    expect(await Promise.race([silent, impatient])).toBe('SERVFAIL');
    expect((await Promise.all(waiting)).every(({ status }) => status === 0)).toBe(true);
    expect(await guest.post(Buffer.alloc(12))).toMatchObject({ status: 400 });
  });

  it('of arbitrary bytes is answered or malformed, never an error', async () => {
    const dns = await DnsServer.start();
    const resolver = new Resolver([dns.address]);
    const bytes = fc.uint8Array({ maxLength: 512 });
    const label = fc.uint8Array({ minLength: 1, maxLength: 63 });
    // Otherwise well-formed, so that the fuzz gets as far as the name.
    const query = fc
      .tuple(fc.array(label, { maxLength: 5 }), fc.nat(300))
      .map(([labels, type]) =>
        Buffer.concat([
          Buffer.from([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
          ...labels.flatMap((each) => [Buffer.from([each.length]), each]),
          Buffer.from([0, type >> 8, type & 255, 0, 1]),
        ]),
      );
    await fc.assert(
      fc.asyncProperty(fc.oneof(bytes, query), async (message) => {
        const answer = await lookUp(Buffer.from(message), () => 'none', resolver);
        if (answer !== undefined) expect(decode(answer.message).type).toBe('response');
      }),
    );
    await dns.close();
    expect(dns.queries).toEqual([]);
  });

  it('about a hostile answer is a failure, not an error', async () => {
    const { guest, dns, warnings } = await startRig({ policy: ALLOWED });
    const long = 'x'.repeat(255);
    dns.zones.set('huge.test', [
      { type: 'TXT', name: 'huge.test', ttl: 0, data: Array.from({ length: 5 }, () => Buffer.from(long)) },
    ]);
    // More than a datagram without EDNS holds; what counts is that it is answered.
    expect((await guest.lookUp('huge.test', 'TXT')).status).toBe(200);
    dns.zones.set('odd.test', [
      { type: 'NS', name: 'odd.test', ttl: 0, data: `${'\\.'.repeat(30)}${'\u0000'.repeat(20)}` },
    ]);
    expect((await guest.lookUp('odd.test', 'NS')).status).toBe(200);
    await until(() => dns.queries.length >= 2);
    expect(warnings).toEqual([]);
  });
});
