/** Who may connect where, what the guest is told, and what is written down. */
import { createServer as createHttpServer } from 'node:http';
import { connect as connectTls } from 'node:tls';
import { freePorts } from '@instavm/testing';
import { describe, expect, it } from 'vitest';
import { type Addresses, Resolver } from '../src/gateway/resolver.ts';
import { addressesOf } from './support/dns-server.ts';
import { bytesOf, resetStream } from './support/guest.ts';
import { echo, listen, needLowPorts, PUBLIC, policyOf, startRig, until } from './support/rig.ts';

describe('a CONNECT', () => {
  it('to a name that a rule allows reaches its address, and is written down when it opens and when it ends', async () => {
    const { port, sockets } = await listen(echo);
    const { guest, dns, ends, records } = await startRig({ policy: { allowedDomains: [`pypi.test:${port}`] } });
    dns.host('pypi.test', PUBLIC);

    const { status, stream } = await guest.ask(`pypi.test:${port}`);
    expect(status).toBe(200);
    stream.end('hello');
    expect(String(await bytesOf(stream))).toBe('hello');

    await until(() => ends().length === 1);
    const about = {
      host: 'pypi.test',
      port,
      address: PUBLIC,
      allowed: true,
      rule: `allowed_domains:pypi.test:${port}`,
    };
    expect(records).toMatchObject([
      { ...about, kind: 'connect', outcome: 'open', bytesSent: 0, bytesReceived: 0, durationMs: null, reason: null },
      { ...about, kind: 'connect', outcome: 'closed', bytesSent: 5, bytesReceived: 5, reason: null },
    ]);
    await until(() => sockets.size === 0);
  });

  it('to a name that no rule allows is refused with the rule, and nobody is asked about it', async () => {
    const { guest, dns, records } = await startRig({ policy: { allowedDomains: ['pypi.test'] } });
    dns.host('evil.test', PUBLIC);
    const answer = await guest.ask('evil.test:443');
    expect(answer).toMatchObject({ status: 403, reason: 'egress_denied', rule: 'default_deny' });
    expect(dns.queries).toEqual([]);
    expect(records).toMatchObject([{ host: 'evil.test', address: null, allowed: false, outcome: 'denied' }]);
    expect(records[0]?.reason).toContain('no rule allows evil.test on port 443');
  });

  it('to a name on another port than the allowed one is refused', async () => {
    const { guest } = await startRig({ policy: { allowedDomains: ['pypi.test:443'] } });
    expect(await guest.ask('pypi.test:22')).toMatchObject({ status: 403, rule: 'default_deny' });
  });

  it('to an address inside allowed_cidrs is let through, and to any other is not', async () => {
    const { port } = await listen(echo);
    const { guest, records } = await startRig({ policy: { allowedCidrs: ['127.0.1.0/30'] } });
    expect((await guest.ask(`${PUBLIC}:${port}`)).status).toBe(200);
    expect(await guest.ask(`127.0.1.9:${port}`)).toMatchObject({ status: 403, rule: 'default_deny' });
    expect(records[0]).toMatchObject({ host: PUBLIC, rule: 'allowed_cidrs:127.0.1.0/30', outcome: 'open' });
  });

  it('to a name whose address is inside allowed_cidrs is let through by that rule', async () => {
    const { port } = await listen(echo);
    const { guest, dns, records } = await startRig({ policy: { allowedCidrs: ['127.0.1.0/24'] } });
    dns.host('any.test', PUBLIC);
    expect((await guest.ask(`any.test:${port}`)).status).toBe(200);
    expect(records).toMatchObject([{ host: 'any.test', rule: 'allowed_cidrs:127.0.1.0/24' }]);
  });

  it.each([
    ['loopback', '127.0.0.1', 'special_address:loopback'],
    ['private', '10.0.0.1', 'special_address:private'],
    ['metadata', '169.254.169.254', 'special_address:metadata'],
    ['a mapped loopback', '::ffff:127.0.0.1', 'special_address:ipv4_mapped'],
    ['unspecified', '0.0.0.0', 'special_address:unspecified'],
  ])('to an allowed name that leads to a %s address is refused', async (_what, address, rule) => {
    const { port, sockets } = await listen(echo, '127.0.0.1');
    const { guest, dns, records } = await startRig({ policy: { allowedDomains: [`inside.test:${port}`] } });
    dns.host('inside.test', address);
    expect(await guest.ask(`inside.test:${port}`)).toMatchObject({ status: 403, reason: 'egress_denied', rule });
    expect(records).toMatchObject([{ allowed: false, rule, outcome: 'denied' }]);
    expect(sockets.size).toBe(0);
  });

  it('to a name with a private and a public address only ever dials the public one', async () => {
    const [port = 0] = await freePorts(1);
    const inside = await listen(echo, '127.0.0.1', port);
    await listen(echo, PUBLIC, port);
    const { guest, dns, records } = await startRig({ policy: { allowedDomains: [`both.test:${port}`] } });
    for (const addresses of [
      ['127.0.0.1', PUBLIC],
      [PUBLIC, '127.0.0.1'],
    ]) {
      dns.host('both.test', ...addresses);
      expect((await guest.ask(`both.test:${port}`)).status).toBe(200);
    }
    expect(records.map(({ address }) => address)).toEqual([PUBLIC, PUBLIC]);
    expect(inside.sockets.size).toBe(0);
  });

  it('dials the address that was checked, however often the name changes', async () => {
    const [port = 0] = await freePorts(1);
    const inside = await listen(echo, '127.0.0.1', port);
    await listen(echo, PUBLIC, port);
    const { guest, dns } = await startRig({ policy: { allowedDomains: [`turning.test:${port}`] } });
    let turn = 0;
    dns.zones.set('turning.test', () => addressesOf('turning.test', [turn++ % 2 === 0 ? PUBLIC : '127.0.0.1']));
    const statuses = [];
    // A and AAAA are asked each time, so each attempt sees one of the two.
    for (let attempt = 0; attempt < 6; attempt++) statuses.push((await guest.ask(`turning.test:${port}`)).status);
    expect(new Set(statuses).size).toBeGreaterThan(0);
    expect(statuses.every((status) => status === 200 || status === 403 || status === 502)).toBe(true);
    expect(inside.sockets.size).toBe(0);
  });

  it('tries the next address when the first does not take the connection', async () => {
    const { port } = await listen(echo, '127.0.1.2');
    const { guest, dns, records } = await startRig({ policy: { allowedDomains: [`two.test:${port}`] } });
    dns.host('two.test', PUBLIC, '127.0.1.2');
    expect((await guest.ask(`two.test:${port}`)).status).toBe(200);
    expect(records).toMatchObject([{ address: '127.0.1.2' }]);
  });

  it('tells a refused connection, an unknown name and a name without address apart', async () => {
    const { port, server } = await listen(echo);
    await new Promise((resolve) => server.close(resolve));
    const { guest, dns, records } = await startRig({ policy: { allowedDomains: ['*.test', `here.test:${port}`] } });
    dns.host('here.test', PUBLIC);
    dns.zones.set('empty.test', []);
    expect(await guest.ask(`here.test:${port}`)).toMatchObject({ status: 502, reason: 'connection_refused' });
    expect(records.at(-1)).toMatchObject({ allowed: true, outcome: 'failed', address: PUBLIC });
    for (const name of ['nowhere.test', 'empty.test'])
      expect(await guest.ask(`${name}:443`)).toMatchObject({ status: 502, reason: 'name_not_found' });
    expect(records.at(-1)).toMatchObject({ allowed: true, outcome: 'failed', address: null });
  });

  it('follows a CNAME to an address, and judges that address', async () => {
    const { port } = await listen(echo);
    const { guest, dns } = await startRig({ policy: { allowedDomains: [`www.test:${port}`] } });
    const chain = (address: string) => [
      { type: 'CNAME' as const, name: 'www.test', ttl: 0, data: 'cdn.test' },
      { type: 'A' as const, name: 'cdn.test', ttl: 0, data: address },
    ];
    dns.zones.set('www.test', chain(PUBLIC));
    expect((await guest.ask(`www.test:${port}`)).status).toBe(200);
    dns.zones.set('www.test', chain('10.1.2.3'));
    expect(await guest.ask(`www.test:${port}`)).toMatchObject({ status: 403, rule: 'special_address:private' });
  });

  it('beyond the limit is refused, ones that wait for a look-up included, and a place that is free is used again', async () => {
    const { port } = await listen(echo);
    const { guest, dns, records } = await startRig({
      maxConnections: 2,
      policy: { allowedDomains: [`*.test:${port}`] },
    });
    dns.host('here.test', PUBLIC);
    dns.zones.set('slow.test', 'silent');
    const { stream } = await guest.ask(`here.test:${port}`);
    const waiting = await guest.connect(`slow.test:${port}`);
    await until(() => dns.queries.some((query) => query.includes('slow.test')));
    expect(await guest.ask(`here.test:${port}`)).toMatchObject({ status: 429, reason: 'too_many_connections' });
    expect(records.at(-1)).toMatchObject({ allowed: false, rule: 'limit', outcome: 'denied' });
    resetStream(waiting);

    resetStream(stream);
    await until(() => records.some(({ outcome }) => outcome === 'failed'));
    expect((await guest.ask(`here.test:${port}`)).status).toBe(200);
  });

  it('whose side ended with its request is a connection with a half-close', async () => {
    const { port } = await listen((socket) => socket.once('end', () => socket.end('bye')).resume());
    const { guest } = await startRig({ policy: { allowedCidrs: ['127.0.1.0/24'] } });
    const stream = await guest.connect(`${PUBLIC}:${port}`, { endStream: true });
    expect(String(await bytesOf(stream))).toBe('bye');
  });

  it('whose side ends while the address is dialled, with nothing said, is one too', async () => {
    const { port } = await listen((socket) => socket.once('end', () => socket.end('bye')).resume());
    const asked = Promise.withResolvers<void>();
    const found = Promise.withResolvers<Addresses>();
    const resolver = new Resolver([]);
    resolver.addresses = () => {
      asked.resolve();
      return found.promise;
    };
    const { guest } = await startRig({ resolver, policy: { allowedDomains: [`later.test:${port}`] } });
    const stream = await guest.connect(`later.test:${port}`);
    await asked.promise;
    stream.end();
    // It has come when what was asked behind it is answered.
    await guest.ask('nobody');
    found.resolve({ ipv4: [PUBLIC], ipv6: [], absence: 'no_data' });
    expect(String(await bytesOf(stream))).toBe('bye');
  });

  it('that is given up while the name is looked up, or while the address is dialled, dials and leaves nothing, and is written down', async () => {
    const { port, sockets } = await listen(echo);
    const { guest, dns, ends } = await startRig({ policy: { allowedDomains: [`later.test:${port}`] } });
    let answer: (() => void) | undefined;
    dns.zones.set('later.test', () => {
      answer?.();
      return addressesOf('later.test', [PUBLIC]);
    });
    const asked = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const stream = await guest.connect(`later.test:${port}`);
    await asked;
    resetStream(stream);
    await until(() => ends().length === 1);
    expect(ends()).toMatchObject([
      { allowed: true, outcome: 'failed', reason: expect.stringMatching(/given up|reset/) },
    ]);
    await until(() => sockets.size === 0);
  });
});

describe('Host and SNI', () => {
  /** Its low ports are this file's own. */
  const FRONT = '127.0.1.80';
  const request = (host: string) => `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;

  it('have to agree with the name on port 80 when the name is why it is allowed', async (context) => {
    needLowPorts(context);
    const seen: (string | undefined)[] = [];
    const server = createHttpServer((incoming, response) => {
      seen.push(incoming.headers.host);
      response.end('ok');
    });
    const { server: tcp } = await listen((socket) => void server.emit('connection', socket), FRONT, 80);
    expect(tcp.listening).toBe(true);
    const { guest, dns, link, ends } = await startRig({ policy: { allowedDomains: ['good.test'] } });
    dns.host('good.test', FRONT);

    const good = await guest.ask('good.test:80');
    good.stream.write(request('good.test'));
    expect(String(await bytesOf(good.stream))).toContain('200 OK');

    const bad = await guest.ask('good.test:80');
    expect(bad.status).toBe(200);
    bad.stream.write(request('evil.test'));
    expect((await bytesOf(bad.stream)).length).toBe(0);
    expect(bad.stream.rstCode).toBe(8);
    expect(seen).toEqual(['good.test']);
    await until(() => ends().some(({ outcome }) => outcome === 'denied'));
    expect(ends().at(-1)).toMatchObject({ host: 'good.test', allowed: false, rule: 'host_mismatch', bytesSent: 0 });

    // Any host may be reached then, so nothing has to agree.
    link.setPolicy(policyOf({ allowHttp: true }));
    const any = await guest.ask('good.test:80');
    any.stream.write(request('evil.test'));
    expect(String(await bytesOf(any.stream))).toContain('200 OK');
  });

  it('have to agree on port 443: a ClientHello for another name never reaches the server', async (context) => {
    needLowPorts(context);
    const arrived: Buffer[] = [];
    await listen((socket) => void socket.on('data', (chunk: Buffer) => arrived.push(chunk)), FRONT, 443);
    const { guest, dns, ends } = await startRig({ policy: { allowedDomains: ['good.test'] } });
    dns.host('good.test', FRONT);
    const hello = async (servername: string): Promise<void> => {
      const { stream } = await guest.ask('good.test:443');
      connectTls({ socket: stream, servername }).on('error', () => {});
    };
    await hello('evil.test');
    await until(() => ends().length === 1);
    expect(ends()).toMatchObject([{ outcome: 'denied', rule: 'host_mismatch', bytesSent: 0 }]);
    expect(ends()[0]?.reason).toContain('evil.test');
    expect(arrived).toEqual([]);
    await hello('good.test');
    await until(() => arrived.length > 0);
    expect(ends()).toHaveLength(1);
  });
});
