/** Outbound access through the client and through the Agents SDK's provider. */
import { join } from 'node:path';
import type { SandboxId } from '@instavm/core';
import { egressLog, openDatabase } from '@instavm/store';
import { egressEntry, startTestDaemon, type TestDaemon } from '@instavm/testing';
import { type EgressPolicy, InstaVM, type Sandbox } from 'instavm';
import { InstaVMSandboxClient, type InstaVMSandboxClientOptions } from 'instavm/openai-agents';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const OPEN: EgressPolicy = {
  allowHttp: true,
  allowHttps: true,
  allowPackageManagers: true,
  allowedDomains: [],
  allowedCidrs: [],
};
const CLOSED: EgressPolicy = { ...OPEN, allowHttp: false, allowHttps: false, allowPackageManagers: false };
const SOME: EgressPolicy = { ...CLOSED, allowedDomains: ['*.example.com'], allowedCidrs: ['192.0.2.0/24'] };

const ENTRY = egressEntry();

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

describe('outbound access of a sandbox', () => {
  it('is what it was made with, and what it is changed to', async () => {
    const made = await client.sandboxes.create({ egress: SOME });
    expect(await made.getEgressPolicy()).toEqual(SOME);
    await made.setEgressPolicy(CLOSED);
    expect(await made.getEgressPolicy()).toEqual(CLOSED);
    await expect(made.setEgressPolicy({ ...SOME, allowedDomains: ['a b'] })).rejects.toMatchObject({
      code: 'invalid_argument',
      details: { problems: [expect.stringContaining('a b')] },
    });
    expect(await made.getEgressPolicy()).toEqual(CLOSED);
    await made.delete();
  });

  it('is explained without connecting', async () => {
    await sandbox.setEgressPolicy(SOME);
    expect(await sandbox.testEgress('192.0.2.7:22')).toEqual({
      ...{ allowed: true, rule: 'allowed_cidrs:192.0.2.0/24', reason: null },
      addresses: [{ address: '192.0.2.7', allowed: true, rule: 'allowed_cidrs:192.0.2.0/24' }],
    });
    await sandbox.setEgressPolicy(CLOSED);
    expect(await sandbox.testEgress('other.test:443')).toMatchObject({ allowed: false, rule: 'default_deny' });
    await expect(sandbox.testEgress('nowhere')).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  it('is logged: in pages, by verdict and host, and followed', async () => {
    const database = await openDatabase(join(daemon.dataDirectory, 'instavm.db'));
    const denied = { ...ENTRY, host: 'other.test', allowed: false, outcome: 'denied', reason: 'no' } as const;
    await egressLog(database).append(sandbox.id as SandboxId, [ENTRY, denied, { ...ENTRY, repeated: 4 }]);
    await database.destroy();
    expect(await sandbox.egressLog()).toEqual([
      { id: 1, ...ENTRY },
      { id: 2, ...denied },
      { id: 3, ...ENTRY, repeated: 4 },
    ]);
    const ids = async (page: object) => (await sandbox.egressLog(page)).map(({ id }) => id);
    expect(await ids({ limit: 1 })).toEqual([3]);
    expect(await ids({ before: 3, limit: 1 })).toEqual([2]);
    expect(await ids({ verdict: 'denied' })).toEqual([2]);
    expect(await ids({ host: 'example.com', after: 1 })).toEqual([3]);
    const followed: unknown[] = [];
    for await (const event of sandbox.followEgressLog({ after: 1 })) {
      followed.push(event.kind === 'gap' ? event : event.id);
      if (followed.length === 2) break;
    }
    expect(followed).toEqual([2, 3]);
  });
});

describe("the provider's sandboxes", () => {
  const provider = () => new InstaVMSandboxClient({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl, memoryMb: 256 });
  const policyWith = async (options: InstaVMSandboxClientOptions): Promise<EgressPolicy> => {
    const session = await provider().create({ options });
    const policy = await session.getEgressPolicy();
    await session.delete();
    return policy;
  };

  it('have the access that their options say, by default all of it', async () => {
    expect(await policyWith({})).toEqual(OPEN);
    expect(await policyWith({ allowHttp: false })).toEqual({ ...OPEN, allowHttp: false });
    const listed = { allowedDomains: ['*.example.com'], allowedCidrs: ['192.0.2.0/24'] };
    expect(await policyWith({ allowInternetAccess: false, ...listed })).toEqual(SOME);
    // No internet is no package registry either, as the contract has it.
    expect(await policyWith({ allowInternetAccess: false, allowPackageManagers: true })).toEqual(CLOSED);
    await expect(policyWith({ allowedDomains: ['a b'] })).rejects.toThrow(/a b/);
  });

  it('come back with the access that was set last, and are changed by what a resume says', async () => {
    const session = await provider().create({});
    await session.setEgressPolicy(SOME);
    const stored = JSON.stringify(await provider().serializeSessionState(session.state));
    const restored = async () => provider().deserializeSessionState(JSON.parse(stored));
    // Someone else may have changed it meanwhile.
    await client.sandboxes.attach(session.state.sandboxId).setEgressPolicy(CLOSED);
    expect(await (await provider().resume(await restored())).getEgressPolicy()).toEqual(CLOSED);
    const opened = await provider().resume(await restored(), { clientOptions: { allowHttps: true } });
    expect(await opened.getEgressPolicy()).toEqual({ ...SOME, allowHttps: true });
    await session.delete();
    const fresh = await provider().resume(await restored());
    expect(fresh.state.sandboxId).not.toBe(session.state.sandboxId);
    expect(await fresh.getEgressPolicy()).toEqual(SOME);
    await fresh.delete();
  });

  it('that begin in a snapshot have its access unless an option says otherwise', async () => {
    await sandbox.setEgressPolicy(CLOSED);
    const { id: snapshotId } = await sandbox.snapshot();
    expect(await policyWith({ snapshotId })).toEqual(CLOSED);
    expect(await policyWith({ snapshotId, allowedDomains: ['example.org'] })).toEqual({
      ...OPEN,
      allowedDomains: ['example.org'],
    });
    await client.snapshots.delete(snapshotId);
  });
});
