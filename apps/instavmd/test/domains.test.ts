/** Custom domains over HTTP. Daemons that stop, and the preview proxy: `domains-kept.test.ts`. */
import { type Clock, MAX_DOMAINS_PER_ACCOUNT, systemClock } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addresses, DomainStage, NAME, TXT } from './domain-stage.ts';

let stage: DomainStage;
beforeEach(async () => {
  stage = await DomainStage.open();
});
afterEach(() => stage.close());

describe('custom domains over HTTP', () => {
  it('are made with the records to set, then verified and issued', async () => {
    const call = await stage.serve();
    const { status, body } = await call('POST', '', stage.request());
    expect([status, body]).toEqual([
      200,
      {
        ...{ id: body.id, domain: NAME, share_id: stage.share.id, status: 'pending', url: `https://${NAME}:8443` },
        ...{ last_error: null, last_error_code: null, dns_provider: 'manual' },
        setup: {
          txt_record: { name: TXT, value: expect.stringMatching(/^instavm-verify=[0-9a-f]{32}$/) },
          cname: { name: NAME, target: `${stage.share.id}.preview.test` },
          verify_endpoint: `/v1/custom-domains/${body.id}/verify`,
        },
        ...{ created_at: expect.any(String), issued_at: null },
      },
    ]);
    expect(Number.isInteger(body.id)).toBe(true);
    stage.publish(body);
    expect(['verified', 'issued']).toContain((await call('POST', `/${body.id}/verify`)).body.status);
    expect(await stage.settled(call, body.id)).toEqual({ ...body, status: 'issued', issued_at: expect.any(String) });
    expect(stage.world.events).toEqual([`look up ${TXT}`, `order ${NAME}`]);
    // Again: nothing is looked up or ordered.
    expect((await call('POST', `/${body.id}/verify`)).body.status).toBe('issued');
    expect(stage.world.events).toHaveLength(2);
    expect((await call('GET')).body).toEqual({ domains: [(await call('GET', `/${body.id}`)).body] });
  });

  it('have no port in their URL where previews are on 443', async () => {
    expect((await stage.create(await stage.serve(addresses('')))).url).toBe(`https://${NAME}`);
  });

  it('are the same when they are asked for again, and of one share', async () => {
    const call = await stage.serve();
    const made = await stage.create(call);
    expect(await stage.create(call, { domain: 'APP.Example.COM.', dns_provider: 'other' })).toEqual(made);
    const other = await stage.world.share(stage.owner.id);
    const refused = await call('POST', '', stage.request({ share_id: other.id }));
    expect([refused.status, refused.body.code]).toEqual([409, 'domain_taken']);
    expect(refused.body.hint).toContain(`DELETE /v1/custom-domains/${made.id}`);
  });

  it('fail with what is missing and what was found instead, and may be verified again', async () => {
    const call = await stage.serve();
    const made = await stage.create(call);
    const value = made.setup.txt_record.value;
    const verify = async () => (await call('POST', `/${made.id}/verify`)).body;
    expect(await verify()).toMatchObject({
      status: 'failed',
      last_error_code: 'domain_unverified',
      last_error: expect.stringContaining(
        `There is no TXT record ${TXT} = ${value}: nothing was found. Create the TXT`,
      ),
    });
    stage.world.txt.set(TXT, [
      'instavm-verify=of another',
      '\x1b[2J\u202e"',
      ...Array.from({ length: 9 }, () => 'x'.repeat(999)),
    ]);
    const { last_error } = await verify();
    expect(last_error).toContain('found "instavm-verify=of another", "?[2J?"", "xxx');
    expect(last_error).toContain('and 6 more');
    expect(last_error.length).toBeLessThan(800);
    stage.world.txt.set(TXT, new Error('queryTxt ESERVFAIL'));
    expect((await verify()).last_error).toMatch(/could not be asked for the TXT record \S+ \(queryTxt ESERVFAIL\)/);
    stage.publish(made);
    await verify();
    expect(await stage.settled(call, made.id)).toMatchObject({ status: 'issued', last_error: null });
  });

  it('are pending again, without the old error, while they are verified again', async () => {
    const call = await stage.serve();
    const made = await stage.create(call);
    expect((await call('POST', `/${made.id}/verify`)).body.status).toBe('failed');
    stage.world.dns.shut();
    const verifying = call('POST', `/${made.id}/verify`);
    const asItIs = async () => (await call('GET', `/${made.id}`)).body;
    await expect.poll(asItIs).toMatchObject({ status: 'pending', last_error: null });
    stage.world.dns.open();
    expect((await verifying).body.status).toBe('failed');
  });

  it('tell the reason of the certificate authority, and hold nothing then', async () => {
    const call = await stage.serve();
    const made = await stage.create(call);
    stage.publish(made);
    stage.world.refusal = new InstaVMError('certificate_failed', 'the CA says: 10.0.0.1 answered 404', {
      hint: 'Point it here.',
    });
    await call('POST', `/${made.id}/verify`);
    expect(await stage.settled(call, made.id)).toMatchObject({
      ...{ status: 'failed', last_error_code: 'certificate_failed' },
      last_error: 'the CA says: 10.0.0.1 answered 404. Point it here.',
    });
    expect(stage.world.events.at(-1)).toBe(`forget ${NAME}`);
    stage.world.refusal = new Error('something that nobody foresaw, with a secret in it');
    await call('POST', `/${made.id}/verify`);
    const failed = await stage.settled(call, made.id);
    expect([failed.last_error_code, failed.last_error.includes('secret')]).toEqual(['internal', false]);
    stage.world.refusal = undefined;
    await call('POST', `/${made.id}/verify`);
    expect((await stage.settled(call, made.id)).status).toBe('issued');
  });

  it('are verified once however many ask, each being answered though DNS is silent', async () => {
    const call = await stage.serve();
    const made = await stage.create(call);
    stage.publish(made);
    stage.world.dns.shut();
    // Two seconds pass at once, and longer never.
    const schedule: Clock['schedule'] = (at, task) =>
      at.getTime() - Date.now() <= 2_000 ? systemClock.schedule(new Date(), task) : () => {};
    stage.world.clock = { now: () => new Date(), schedule };
    const asked = Array.from({ length: 5 }, () => call('POST', `/${made.id}/verify`));
    expect((await Promise.all(asked)).map(({ body }) => body.status)).toEqual(Array(5).fill('pending'));
    expect(stage.world.events).toEqual([`look up ${TXT}`]);
    stage.world.dns.open();
    expect((await stage.settled(call, made.id)).status).toBe('issued');
    expect(stage.world.events).toEqual([`look up ${TXT}`, `order ${NAME}`]);
    stage.world.clock = systemClock;
  });

  it('are deleted at any time, with what is under way and their certificate', async () => {
    const call = await stage.serve();
    const gone = async (id: number) => {
      expect((await call('DELETE', `/${id}`)).body).toEqual({ id, deleted: true });
      for (const [method, path] of [
        ['GET', ''],
        ['DELETE', ''],
        ['POST', '/verify'],
        ['GET', '/health'],
      ] as const)
        expect((await call(method, `/${id}${path}`)).body.code).toBe('domain_not_found');
    };
    await gone((await stage.create(call)).id);
    expect(stage.world.events).toEqual([]);

    const issuing = await stage.create(call);
    stage.publish(issuing);
    stage.world.authority.shut();
    expect((await call('POST', `/${issuing.id}/verify`)).body.status).toBe('verified');
    await gone(issuing.id);
    expect(stage.world.events.slice(-2)).toEqual([`order ${NAME}`, `forget ${NAME}`]);

    stage.world.authority.open();
    const issued = await stage.create(call);
    expect(issued.setup.txt_record.value).not.toBe(issuing.setup.txt_record.value);
    stage.publish(issued);
    await call('POST', `/${issued.id}/verify`);
    await stage.settled(call, issued.id);
    await gone(issued.id);
    expect(stage.world.certificates.size).toBe(0);
    expect((await call('GET')).body.domains).toEqual([]);
  });

  it('tell how they are', async () => {
    const call = await stage.serve();
    const made = await stage.create(call);
    const before = { ...made, cert_present: false, key_present: false, proxy_active: false, cert_expires_at: null };
    expect((await call('GET', `/${made.id}/health`)).body).toEqual(before);
    stage.publish(made);
    await call('POST', `/${made.id}/verify`);
    await stage.settled(call, made.id);
    expect((await call('GET', `/${made.id}/health`)).body).toMatchObject({
      ...{ status: 'issued', cert_present: true, key_present: true, proxy_active: true },
      cert_expires_at: '1970-01-01T00:00:00.000Z',
    });
  });

  it('belong to who proves it first; claims alone are in nobody’s way', async () => {
    const call = await stage.serve();
    const rival = await stage.world.account('c@d');
    const theirs = { domain: NAME, share_id: (await stage.world.share(rival.id)).id, dns_provider: 'x' };
    const claim = (await call('POST', '', theirs, rival.key)).body;
    const mine = await stage.create(call);
    expect(claim.setup.txt_record.value).not.toBe(mine.setup.txt_record.value);
    stage.publish(mine);
    await call('POST', `/${mine.id}/verify`);
    await stage.settled(call, mine.id);
    // The rival's record says that it is the rival's as well, and that is too late.
    stage.world.txt.set(TXT, [mine.setup.txt_record.value, claim.setup.txt_record.value]);
    expect((await call('POST', `/${claim.id}/verify`, undefined, rival.key)).body).toMatchObject({
      ...{ status: 'failed', last_error_code: 'domain_taken' },
    });
    await call('DELETE', `/${claim.id}`, undefined, rival.key);
    expect(stage.world.certificates).toEqual(new Set([NAME]));
    expect((await call('POST', '', theirs, rival.key)).body.code).toBe('domain_taken');
    await call('DELETE', `/${mine.id}`);
    const again = (await call('POST', '', theirs, rival.key)).body;
    stage.publish(again);
    await call('POST', `/${again.id}/verify`, undefined, rival.key);
    await expect.poll(() => stage.world.certificates).toEqual(new Set([NAME]));
  });

  it('are nobody else’s to see, verify or delete, and lead to shares of their account', async () => {
    const call = await stage.serve();
    const { id } = await stage.create(call);
    const stranger = await stage.world.account('c@d');
    for (const [method, path] of [
      ['GET', ''],
      ['GET', '/health'],
      ['POST', '/verify'],
      ['DELETE', ''],
    ] as const) {
      const answer = await call(method, `/${id}${path}`, undefined, stranger.key);
      expect([answer.status, answer.body.code]).toEqual([404, 'domain_not_found']);
      expect((await call(method, `/${id}${path}`, undefined, 'x')).status).toBe(401);
    }
    expect((await call('GET', '', undefined, stranger.key)).body.domains).toEqual([]);
    const foreign = await call('POST', '', stage.request({ domain: 'b.example.com' }), stranger.key);
    expect([foreign.status, foreign.body.code]).toEqual([404, 'share_not_found']);
    expect((await call('GET', `/${id}`)).body.status).toBe('pending');
  });

  it('are limited in number, and in how many certificates they order in an hour', async () => {
    const call = await stage.serve();
    const made = [];
    for (let n = 0; n < MAX_DOMAINS_PER_ACCOUNT; n++)
      made.push(await stage.create(call, { domain: `n${n}.example.com` }));
    const refused = await call('POST', '', stage.request());
    expect([refused.status, refused.body.code]).toEqual([429, 'quota_exceeded']);
    expect(refused.body.hint).toContain('Delete custom domains');
    for (const one of made) stage.publish(one);
    for (const { id } of made) await call('POST', `/${id}/verify`);
    const last = await stage.settled(call, made.at(-1).id);
    expect(last).toMatchObject({ status: 'failed', last_error_code: 'rate_limited' });
    const orders = stage.world.events.filter((event) => event.startsWith('order'));
    expect(orders).toHaveLength(20);
    const later = new Date(Date.now() + 3_600_001);
    stage.world.clock = { now: () => later, schedule: systemClock.schedule };
    await call('POST', `/${last.id}/verify`);
    expect((await stage.settled(call, last.id)).status).toBe('issued');
  });

  it('name what is wrong with a request', async () => {
    const call = await stage.serve();
    const wrong: [object, string][] = [
      [{ domain: 'localhost' }, 'two labels'],
      [{ domain: '*.example.com' }, 'no host name'],
      [{ domain: '127.0.0.1' }, 'is an address'],
      [{ domain: '0x7f.1' }, 'is an address'],
      [{ domain: '[::1]' }, 'no host name'],
      [{ domain: 'preview.test.example' }, 'belongs to the preview domain'],
      [{ domain: 'a.b.PREVIEW.test.Example.' }, 'belongs to the preview domain'],
      [{ domain: 'test.example' }, 'above the preview domain'],
      [{ domain: 'https://example.com' }, 'no host name'],
      [{ domain: 'example.com:443' }, 'no host name'],
      [{ domain: 'a_b.example.com' }, 'no host name'],
      [{ domain: '-a.example.com' }, 'no host name'],
      [{ domain: 'a..example.com' }, 'no host name'],
      [{ domain: 'xn--a.example.com' }, 'no internationalized name'],
      [{ domain: 'exa\u0000mple.com' }, 'no host name'],
      [{ domain: 'exa mple.com' }, 'no host name'],
      [{ domain: `${'a'.repeat(64)}.com` }, 'no host name'],
      [{ domain: `${'a.'.repeat(120)}com` }, 'longer than 234 characters'],
      [{ domain: '' }, 'domain'],
      [{ domain: 7 }, 'domain'],
      [{ dns_provider: 7 }, 'dns_provider'],
      [{ more: 1 }, 'more'],
    ];
    for (const [fields, words] of wrong) {
      const { status, body } = await call('POST', '', stage.request(fields));
      expect([status, body.code], JSON.stringify(fields)).toEqual([422, 'invalid_argument']);
      expect(JSON.stringify(body)).toContain(words);
    }
    const unknown = await call('POST', '', stage.request({ share_id: 'x' }));
    expect([unknown.status, unknown.body.code]).toEqual([404, 'share_not_found']);
    for (const id of ['0', 'x', '1.5', '-1', '9'.repeat(20)])
      expect((await call('GET', `/${id}`)).body.code, id).toBe('domain_not_found');
    expect((await stage.create(call, { domain: 'Bücher.Example', dns_provider: null })).domain).toBe(
      'xn--bcher-kva.example',
    );
  });

  it('take no credentials, and say what to do instead', async () => {
    const call = await stage.serve();
    expect((await stage.create(call, { dns_credentials: {} })).status).toBe('pending');
    const { status, body } = await call('POST', '', stage.request({ dns_credentials: { TOKEN: 'very secret' } }));
    expect([status, body.code]).toEqual([403, 'not_available']);
    expect(body.detail).toContain('yourself');
    expect(JSON.stringify(body)).not.toContain('very secret');
  });

  it('are refused with the setting to change where no previews are served, and can still be deleted', async () => {
    const { id } = await stage.create(await stage.serve());
    const off = await stage.serve(null);
    for (const [method, path, body] of [
      ['POST', '', stage.request()],
      ['GET', ''],
      ['GET', `/${id}`],
      ['GET', `/${id}/health`],
      ['POST', `/${id}/verify`],
    ] as const)
      expect((await off(method, path, body)).body).toMatchObject({
        code: 'not_available',
        hint: expect.stringContaining('INSTAVM_PREVIEW_LISTEN'),
      });
    expect((await off('DELETE', `/${id}`)).status).toBe(200);
  });
});
