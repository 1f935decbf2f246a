import { tmpdir } from 'node:os';
import { describe, expect, it } from 'vitest';
import { backendFinding, isAtLeast, productionChecks } from '../steps/production-checks.ts';

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

it('What production asks of a host is said on every host, and needs no remedy where QEMU runs the guests', async () => {
  // No images there, so no backend but QEMU.
  const checks = productionChecks({ cacheDirectory: tmpdir(), agentPath: '/nonexistent/agent' });
  const [backend, ...others] = await Promise.all(checks.map(({ run }) => run(() => {})));
  expect(backend).toMatchObject({ status: 'warn', fix: 'npm run setup' });
  expect(others).toHaveLength(5);
  for (const finding of others) expect(finding).toEqual({ status: 'n/a', found: expect.stringMatching(/./) });
});

it.each([
  ['5.10.0-30-amd64', [5, 10], true],
  ['5.9.16', [5, 10], false],
  ['6.1.0-13-cloud-amd64', [5, 10], true],
  ['1.16.0', [1, 16, 1], false],
])('%s against %j: %s', (text, wanted, enough) => {
  expect(isAtLeast(text, wanted)).toBe(enough);
});
