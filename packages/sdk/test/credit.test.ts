/** Credit through the client. */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

let daemon: TestDaemon;
let client: InstaVM;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake', env: { INSTAVM_RATE_VCPU_HOUR: '100', INSTAVM_METER_SECONDS: '0.2' } });
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
});
afterAll(async () => {
  client.close();
  await daemon.stop();
});

describe('credit', () => {
  it('is used by what runs, and told by day and charge', async () => {
    expect(await client.credit.balance()).toEqual({
      allocated: 50,
      used: 0,
      remaining: 50,
      overage: 0,
      isEnforced: false,
    });
    const sandbox = await client.sandboxes.create();
    await expect.poll(async () => (await client.credit.balance()).used).toBeGreaterThan(0.01);
    await sandbox.delete();
    await expect.poll(async () => (await client.credit.charges()).length).toBeGreaterThan(0);
    const [charge] = await client.credit.charges('all', 1);
    expect(charge).toMatchObject({ kind: 'vm_execution', resourceId: sandbox.id, from: expect.any(Date) });
    const { totals, days } = await client.credit.usage(3);
    expect(days).toHaveLength(3);
    expect(totals.costDollars).toBeCloseTo((await client.credit.balance()).used, 6);
    expect(totals.vcpuHours * 100 + totals.memoryGibHours * 0.016).toBeCloseTo(totals.costDollars, 4);
    expect(await client.credit.rates()).toEqual({
      perVcpuHour: 100,
      perMemoryGibHour: 0.016,
      perStorageGibHour: 0.0001,
      perEgressGib: 0.05,
    });
  });

  it('is granted by the administrator', async () => {
    const before = (await client.credit.balance()).remaining;
    const { email, remaining } = await client.credit.grant(10, { note: 'paid', id: 'order-1' });
    expect(email).toBe('admin@localhost');
    expect(remaining).toBeCloseTo(before + 10, 4);
    expect((await client.credit.grant(10, { id: 'order-1' })).remaining).toBeCloseTo(before + 10, 4);
    await expect(client.credit.grant(1, { account: 'nobody' })).rejects.toMatchObject({ code: 'account_not_found' });
  });
});
