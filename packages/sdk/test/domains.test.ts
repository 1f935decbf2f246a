/** Custom domains through the client, against a daemon with a real certificate authority. */
import { AcmeDaemon } from '@instavm/testing/acme-daemon';
import { whyNoPebble } from '@instavm/testing/pebble';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

describe.skipIf(whyNoPebble() !== undefined)('custom domains', () => {
  let stand: AcmeDaemon;
  let client: InstaVM;
  let sandbox: Sandbox;
  beforeAll(async () => {
    stand = await AcmeDaemon.start();
    client = new InstaVM({ apiKey: stand.daemon.apiKey, baseUrl: stand.daemon.baseUrl });
    sandbox = await client.sandboxes.create();
  });
  afterAll(async () => {
    client.close();
    await stand.stop();
  });

  it('are made, verified, waited for, looked at and deleted', async () => {
    const share = await sandbox.shares.create({ port: 8000 });
    const made = await client.domains.create({ domain: 'sdk.example.com', shareId: share.id });
    expect(made).toMatchObject({ domain: 'sdk.example.com', shareId: share.id, status: 'pending', error: null });
    expect(made.records.cname).toEqual({ name: 'sdk.example.com', target: new URL(share.url).hostname });
    expect(await client.domains.create({ domain: 'SDK.example.com', shareId: share.id })).toEqual(made);
    await expect(client.domains.waitUntilIssued(made.id, { timeoutMs: 0 })).rejects.toMatchObject({
      code: 'wait_timeout',
      hint: expect.stringContaining('verified first'),
    });
    await stand.pebble.addTxt(made.records.txt.name, made.records.txt.value);
    expect((await client.domains.verify(made.id)).error).toBeNull();
    const issued = await client.domains.waitUntilIssued(made.id);
    expect(issued).toEqual({ ...made, status: 'issued', issuedAt: expect.any(Date) });
    expect(await client.domains.get(made.id)).toEqual(issued);
    expect(await client.domains.list()).toEqual([issued]);
    expect(await client.domains.health(made.id)).toEqual({
      ...{ ...issued, certPresent: true, keyPresent: true, proxyActive: true },
      certExpiresAt: expect.any(Date),
    });
    await client.domains.delete(made.id);
    await expect(client.domains.get(made.id)).rejects.toMatchObject({ code: 'domain_not_found', status: 404 });
    await expect(client.domains.delete(made.id)).rejects.toMatchObject({ code: 'domain_not_found' });
  });

  it('fail with the reason, also to who waits, until they are verified again', async () => {
    const { id: shareId } = await sandbox.shares.create({ port: 8000 });
    const made = await client.domains.create({ domain: 'late.example.com', shareId, dnsProvider: 'mine' });
    expect((await client.domains.verify(made.id)).error).toEqual({
      code: 'domain_unverified',
      message: expect.stringContaining(made.records.txt.value),
    });
    await expect(client.domains.waitUntilIssued(made.id)).rejects.toMatchObject({
      code: 'domain_unverified',
      message: expect.stringMatching(/^late\.example\.com: There is no TXT record/),
    });
    await stand.pebble.addTxt(made.records.txt.name, made.records.txt.value);
    await client.domains.verify(made.id);
    expect((await client.domains.waitUntilIssued(made.id)).error).toBeNull();
  });

  it('are waited for until the caller has had enough', async () => {
    const { id: shareId } = await sandbox.shares.create({ port: 8000 });
    const { id } = await client.domains.create({ domain: 'never.example.com', shareId });
    const waiting = client.domains.waitUntilIssued(id, { signal: AbortSignal.timeout(300) });
    await expect(waiting).rejects.toMatchObject({ name: expect.stringMatching(/AbortError|TimeoutError/) });
  });
});
