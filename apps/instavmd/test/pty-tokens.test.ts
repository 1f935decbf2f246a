import type { AccountId, SandboxId } from '@instavm/core';
import { describe, expect, it } from 'vitest';
import { PtyTokens } from '../src/pty-tokens.ts';

const grant = { accountId: 'acct_a' as AccountId, sandboxId: 'b' as SandboxId, ptyId: 'c', readOnly: true };

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

  it('is refused when ten thousand wait, until some have expired', () => {
    let now = 0;
    const tokens = new PtyTokens(() => now);
    for (let count = 0; count < 10_000; count++) tokens.issue(grant);
    expect(() => tokens.issue(grant)).toThrow(expect.objectContaining({ code: 'rate_limited' }));
    now = 60_001;
    expect(tokens.redeem(tokens.issue(grant).token)).toEqual(grant);
  });
});
