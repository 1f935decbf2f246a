/**
 * A host that reaches the outside through an HTTP proxy alone. The proxy leads any address to the servers of `egress/outside.ts`, so that programs can be
 * seen to use addresses instead of names.
 */
import type { Sandbox } from 'instavm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FAR, FAR_CIDRS, PORTS, PUBLIC, SITE_CIDRS } from './egress/outside.ts';
import { type Entry, type Probe, World } from './egress/world.ts';

let world: World;
let sandbox: Sandbox;

beforeAll(async () => {
  world = await World.open(({ proxy }) => ({
    INSTAVM_EGRESS_PROXY: proxy,
    INSTAVM_EGRESS_SITE_CIDRS: `${SITE_CIDRS} ${FAR_CIDRS}`,
    INSTAVM_EGRESS_FORBIDDEN_CIDRS: '192.0.2.99/32',
    INSTAVM_EGRESS_CONNECTIONS: '20',
  }));
  sandbox = await world.sandbox();
});
afterAll(() => world?.close());
beforeEach(() => {
  world.outside.tunnels.length = 0;
});

const outcomes = async (...probes: Probe[]): Promise<unknown[]> =>
  (await world.probe(sandbox, probes)).map(({ result }) => result);
const expectLogged = (host: string, row: Partial<Entry>): Promise<void> =>
  expect.poll(() => world.log(sandbox, `&host=${host}`)).toContainEqual(expect.objectContaining(row));

describe('through the proxy of the host', () => {
  it('a name goes as the address that was checked', async () => {
    await world.setPolicy(sandbox, { allowed_domains: ['allowed.test'] });
    expect(await outcomes(['http', 'allowed.test'])).toEqual(['reached allowed.test']);
    expect(world.outside.tunnels).toEqual([`${PUBLIC}:80`]);
    await expectLogged('allowed.test', { address: PUBLIC, outcome: 'closed' });
  });

  it('a denied name never comes to it, and neither does its address', async () => {
    await world.setPolicy(sandbox, { allowed_domains: ['allowed.test'] });
    expect(await outcomes(['connect', 'other.test', 80], ['connect', FAR, 80])).toEqual([
      'ECONNREFUSED',
      'ECONNREFUSED',
    ]);
    expect(world.outside.tunnels).toEqual([]);
    await expectLogged(FAR, { allowed: false, rule: 'default_deny', outcome: 'denied' });
  });

  it('addresses of an allowed range work on every port, those outside on none', async () => {
    await world.setPolicy(sandbox, { allowed_cidrs: ['192.0.2.64/26', '2001:db8::/64'] });
    const probes: Probe[] = [
      ['after_first_byte', FAR, PORTS.echo],
      ['http', '2001:db8::5', 'six'],
      ['connect', '192.0.2.1', 80],
      ['connect', '2001:db8:1::5', 80],
    ];
    expect(await outcomes(...probes)).toEqual(['answered', 'reached six', 'ECONNREFUSED', 'ECONNREFUSED']);
    expect(world.outside.tunnels).toEqual([`${FAR}:${PORTS.echo}`, '[2001:db8::5]:80']);
    await expectLogged(FAR, { rule: 'allowed_cidrs:192.0.2.64/26', outcome: 'closed' });
  });

  it('any public address is a web server, and no private one', async () => {
    await world.setPolicy(sandbox, { allow_http: true });
    const probes: Probe[] = [
      ['http', FAR, 'x'],
      ['connect', FAR, 443],
      ['connect', '10.0.0.1', 80],
      ['connect', '169.254.169.254', 80],
    ];
    expect(await outcomes(...probes)).toEqual(['reached x', 'ECONNREFUSED', 'ECONNREFUSED', 'ECONNREFUSED']);
    await expectLogged('10.0.0.1', { rule: 'special_address:private' });
  });

  it('what the operator forbids stays forbidden, and what belongs to the host', async () => {
    await world.setPolicy(sandbox, { allowed_cidrs: ['0.0.0.0/0', '::/0'], allow_http: true });
    const probes: Probe[] = [
      ['connect', '192.0.2.99', 80],
      ['connect', '169.254.169.254', 80],
      ['connect', '0.0.0.0', 80],
      ['http', '10.0.0.1', 'lan'],
    ];
    expect(await outcomes(...probes)).toEqual(['ECONNREFUSED', 'ECONNREFUSED', 'ECONNREFUSED', 'reached lan']);
    await expectLogged('192.0.2.99', { rule: 'forbidden_by_operator' });
    await expectLogged('169.254.169.254', { rule: 'special_address:metadata' });
    await world.setPolicy(sandbox, { allowed_domains: ['loop.test'], allowed_cidrs: ['127.0.0.0/8'] });
    expect(await outcomes(['connect', 'loop.test', 80])).toEqual(['ECONNREFUSED']);
    await expectLogged('loop.test', { rule: 'special_address:host' });
  });

  it('a port where nobody listens is an error of the proxy', async () => {
    await world.setPolicy(sandbox, { allowed_cidrs: ['192.0.2.0/24'] });
    expect(await outcomes(['connect', FAR, PORTS.closed])).toEqual(['ECONNREFUSED']);
    await expectLogged(FAR, { outcome: 'failed', reason: expect.stringContaining('proxy') });
  });
});

describe('more connections than a sandbox may have', () => {
  it('are refused, with the limit named, until others end', async () => {
    await world.setPolicy(sandbox, { allowed_domains: ['allowed.test'] });
    expect(await outcomes(['together', 'allowed.test', PORTS.echo, 21])).toEqual(['ECONNREFUSED']);
    await expectLogged('allowed.test', { allowed: false, rule: 'limit' });
    // Each has its row when it no longer counts.
    const ended = async (): Promise<number> => {
      const rows = await world.log(sandbox, '&host=allowed.test');
      return rows
        .filter(({ port, allowed }) => allowed && port === PORTS.echo)
        .reduce((sum, { repeated }) => sum + repeated, 0);
    };
    await expect.poll(ended).toBe(20);
    expect(await outcomes(['together', 'allowed.test', PORTS.echo, 20])).toEqual([20]);
  });
});
