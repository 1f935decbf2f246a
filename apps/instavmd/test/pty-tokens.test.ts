import type { AccountId, SandboxId } from '@instavm/core';
import { describe, expect, it } from 'vitest';
import type { Caller } from '../src/auth.ts';
import { keyRight } from '../src/key-connections.ts';
import { PtyTokens } from '../src/pty-tokens.ts';

const account = {
  id: 'acct_a' as AccountId,
  email: '',
  name: '',
  createdAt: new Date(),
  isAdministrator: false,
  isVerified: true,
};
const caller: Caller = {
  account,
  scope: 'run',
  keyId: 1,
  keyPrefix: 'instavm_sk_abc',
  signInId: null,
  expiresAt: null,
  secretEndsAt: null,
  sandboxMetadata: null,
};
const grant = { caller, sandboxId: 'b' as SandboxId, ptyId: 'c', readOnly: true };

describe('a terminal token', () => {
  it('is good once', () => {
    const tokens = new PtyTokens();
    const { token } = tokens.issue(grant);
    expect(tokens.redeem(token)).toEqual(grant);
    expect(tokens.redeem(token)).toBeUndefined();
  });

  it('is good for a minute', () => {
    let now = 1_000_000;
    const tokens = new PtyTokens(() => now);
    const [early, late] = [tokens.issue(grant), tokens.issue(grant)];
    expect(early.expiresAt.getTime()).toBe(now + 60_000);
    now += 59_999;
    expect(tokens.redeem(early.token)).toEqual(grant);
    now += 1;
    expect(tokens.redeem(late.token)).toBeUndefined();
  });

  it('ends with the key that it was made with', () => {
    let now = 1_000_000;
    const tokens = new PtyTokens(() => now);
    const [revoked, other, expiring] = [
      tokens.issue(grant),
      tokens.issue({ ...grant, caller: { ...caller, keyId: 2 } }),
      tokens.issue({ ...grant, caller: { ...caller, keyId: 3, expiresAt: new Date(now + 10) } }),
    ];
    tokens.forget(keyRight(1));
    expect(tokens.redeem(revoked.token)).toBeUndefined();
    expect(tokens.redeem(other.token)).toBeDefined();
    now += 10;
    expect(tokens.redeem(expiring.token)).toBeUndefined();
  });

  it('is refused when ten thousand wait, until some have expired', () => {
    let now = 0;
    const tokens = new PtyTokens(() => now);
    for (let count = 0; count < 10_000; count++) tokens.issue(grant);
    expect(() => tokens.issue(grant)).toThrow(expect.objectContaining({ code: 'rate_limited' }));
    now = 60_001;
    expect(tokens.redeem(tokens.issue(grant).token)).toEqual(grant);
  });
});
