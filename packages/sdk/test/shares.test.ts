/** Ports as addresses, through the client and through the Agents SDK's provider. */
import { X509Certificate } from 'node:crypto';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { urlForExposedPort } from '@openai/agents-core/sandbox';
import { InstaVM, type Sandbox } from 'instavm';
import { InstaVMSandboxClient, type InstaVMSandboxClientOptions } from 'instavm/openai-agents';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

let daemon: TestDaemon;
let client: InstaVM;
let sandbox: Sandbox;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake' });
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  sandbox = await client.sandboxes.create();
});
afterAll(async () => {
  client.close();
  await daemon.stop();
});

describe('shares', () => {
  it('are made, found, changed and revoked', async () => {
    const share = await sandbox.shares.create({ port: 8000 });
    expect(share).toMatchObject({ port: 8000, isPublic: false, sandboxId: sandbox.id, createdAt: expect.any(Date) });
    expect(new URL(share.url)).toMatchObject({ protocol: 'https:', pathname: '/', search: '' });
    expect(new URL(share.url).hostname).toMatch(new RegExp(`^${share.id}\\.`));
    expect(await sandbox.shares.create({ port: 8000 })).toEqual(share);
    expect(await client.shares.get(share.id)).toEqual(share);
    expect(await client.shares.update(share.id, { isPublic: true })).toEqual({ ...share, isPublic: true });
    expect((await sandbox.shares.create({ port: 8000 })).isPublic).toBe(true);
    expect(await client.shares.update(share.id, { rewriteHost: true })).toMatchObject({
      isPublic: true,
      rewriteHost: true,
    });
    expect((await sandbox.shares.create({ port: 8000, rewriteHost: false })).rewriteHost).toBe(false);
    await client.shares.revoke(share.id);
    await client.shares.revoke(share.id);
    await expect(client.shares.get(share.id)).rejects.toMatchObject({ code: 'share_not_found', status: 404 });
    expect((await sandbox.shares.create({ port: 8000 })).id).not.toBe(share.id);
  });

  it('are listed, of one sandbox and of all', async () => {
    const other = await client.sandboxes.create();
    const share = await other.shares.create({ port: 1, isPublic: true });
    expect(await other.shares.list()).toEqual([share]);
    const mine = await sandbox.shares.create({ port: 2 });
    expect(await client.shares.list()).toEqual(expect.arrayContaining([share, mine]));
    expect(await sandbox.shares.list()).not.toContainEqual(share);
    const all = await client.shares.list();
    expect(await client.shares.list({ limit: 1 })).toEqual(all.slice(0, 1));
    expect(await client.shares.list({ before: all[0]?.id ?? '' })).toEqual(all.slice(1));
    await other.delete();
    expect(await client.shares.list()).not.toContainEqual(share);
    await expect(other.shares.create({ port: 1 })).rejects.toMatchObject({ code: 'invalid_state' });
  });

  it('have an authority for those who shall trust their addresses', async () => {
    const { domain, certificate } = await client.shares.authority();
    const share = await sandbox.shares.create({ port: 8000 });
    expect(new URL(share.url).hostname).toBe(`${share.id}.${domain}`);
    expect(new X509Certificate(certificate).ca).toBe(true);
  });

  it('give links that end, or are taken back', async () => {
    const share = await sandbox.shares.create({ port: 8000 });
    const link = await sandbox.shares.link(share.id, { ttlSeconds: 60 });
    expect(new URL(link.url).origin).toBe(new URL(share.url).origin);
    expect(new URL(link.url).search).not.toBe('');
    expect(link.expiresAt.getTime() - Date.now()).toBeLessThanOrEqual(60_000);
    expect((await client.shares.link(share.id)).expiresAt.getTime() - Date.now()).toBeGreaterThan(3_500_000);
    expect(link.url).toContain(link.id);
    for (let round = 0; round < 2; round++) await client.shares.revokeLink(share.id, link.id);
    await expect(client.shares.revokeLink(share.id, 'nonsense')).rejects.toMatchObject({ code: 'invalid_argument' });
  });
});

describe("the provider's ports", () => {
  const session = (options: InstaVMSandboxClientOptions) =>
    new InstaVMSandboxClient({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl, memoryMb: 256 }).create({ options });

  it('are public addresses, the same ones each time, and remembered', async () => {
    const one = await session({});
    const endpoint = await one.resolveExposedPort(8000);
    const [share] = await one.sandbox.shares.list();
    expect(share).toMatchObject({ port: 8000, isPublic: true });
    expect(urlForExposedPort(endpoint, 'http')).toBe(`${share?.url}/`);
    expect(urlForExposedPort(endpoint, 'ws')).toBe(`${share?.url.replace('https', 'wss')}/`);
    expect(await one.resolveExposedPort(8000)).toEqual(endpoint);
    expect(one.state.exposedPorts).toEqual({ '8000': endpoint });
    await one.delete();
    await expect(one.resolveExposedPort(8000)).rejects.toMatchObject({
      name: 'SandboxExposedPortUnavailableError',
      details: { port: 8000, code: 'invalid_state' },
    });
  });

  it('are only those that are declared, when some are', async () => {
    const one = await session({ exposedPorts: [3000] });
    expect((await one.resolveExposedPort(3000)).tls).toBe(true);
    await expect(one.resolveExposedPort(3001)).rejects.toThrow(/3001 is not in exposedPorts/);
    await expect(one.resolveExposedPort(0)).rejects.toThrow(/between 1 and 65535/);
    await one.delete();
    await expect(session({ exposedPorts: [70_000] })).rejects.toThrow(/between 1 and 65535/);
  });

  it('are opened by a token when they are not to be public, which is nowhere in the state', async () => {
    const one = await session({ exposedPortsPublic: false });
    const endpoint = await one.resolveExposedPort(8000);
    const [share] = await one.sandbox.shares.list();
    expect(share?.isPublic).toBe(false);
    expect(endpoint.query).not.toBe('');
    expect(urlForExposedPort(endpoint, 'http')).toBe(`${share?.url}/?${endpoint.query}`);
    expect(JSON.stringify(one.state)).not.toContain(endpoint.query);
    await one.delete();
  });
});
