import { tmpdir } from 'node:os';
import { describe, expect, it } from 'vitest';
import { backendFinding, jailFinding, productionChecks } from '../steps/production-checks.ts';

describe('the backend that the doctor tells', () => {
  const binaries = { firecracker: '/usr/bin/firecracker', jailer: '/usr/bin/jailer' };

  it('is QEMU with the reason and the remedy where Firecracker cannot be used', () => {
    const verdict = { usable: false, why: 'the jailer needs root', remedy: 'Run as root.' } as const;
    expect(backendFinding(verdict)).toEqual({
      status: 'warn',
      found: 'QEMU, and not Firecracker: the jailer needs root',
      fix: 'Run as root.',
    });
  });

  it.each([
    ['1.12.1', 'ok'],
    ['1.15.0', 'ok'],
    ['1.16.1', 'warn'],
    ['1.17.0', 'warn'],
  ])('is Firecracker %s, which is %s', (version, status) => {
    expect(backendFinding({ usable: true, binaries, version }).status).toBe(status);
  });
});

describe('the jail of QEMU that the doctor tells', () => {
  const whole = {
    namespaces: 'root',
    dropsCapabilities: true,
    uids: { first: 1, count: 1 },
    parentCgroup: 'g',
  } as const;

  it('is whole, or says what is missing', () => {
    expect(jailFinding({ ...whole, missing: [] }).status).toBe('ok');
    const found = expect.stringContaining('not to be had here: limits');
    expect(jailFinding({ ...whole, missing: ['limits'] })).toMatchObject({
      status: 'warn',
      found,
      fix: expect.stringMatching(/./),
    });
  });
});

it('What production asks of a host is said on every host, and needs no remedy where QEMU runs the guests', async () => {
  // No images there, so no backend but QEMU.
  const checks = productionChecks({ cacheDirectory: tmpdir(), agentPath: '/nonexistent/agent' });
  const [backend, jail, ...others] = await Promise.all(checks.map(({ run }) => run(() => {})));
  expect(backend).toMatchObject({ status: 'warn', fix: 'npm run setup' });
  expect(jail?.found).toMatch(/^no privileges, seccomp/);
  expect(others.length).toBeGreaterThan(15);
  for (const finding of others) expect(finding).toEqual({ status: 'n/a', found: expect.stringMatching(/./) });
});
