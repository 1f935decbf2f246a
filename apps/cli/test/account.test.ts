/** What the command line tells and changes about an account: keys, credit, quotas. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CommandLine, PATIENCE } from './command-line.ts';

let cli: CommandLine;
beforeAll(async () => {
  cli = await CommandLine.open();
});
afterAll(() => cli.close());

describe('instavm keys', PATIENCE, () => {
  it('makes keys that go into a pipe, lists, rotates and revokes them', async () => {
    const made = await cli.run(['keys', 'create', 'ci', '--scope', 'run', '--ttl', '1d']);
    expect([made.code, made.stdout]).toEqual([0, expect.stringMatching(/^instavm_sk_[\w-]{43}\n$/)]);
    const [key] = JSON.parse((await cli.run(['keys', 'ls', '--json'])).stdout);
    expect(key).toMatchObject({ name: 'ci', scope: 'run', prefix: made.stdout.slice(0, key.prefix.length) });
    expect((await cli.run(['keys', 'ls'])).stdout).toMatch(/KEY +NAME[\s\S]*ci +instavm_sk_/);
    const changes = { INSTAVM_API_KEY: made.stdout.trim() };
    expect((await cli.run(['ls', '--json'], { changes })).code).toBe(0);
    expect(await cli.run(['keys', 'ls'], { changes })).toMatchObject({
      code: 4,
      stderr: expect.stringContaining('scope full'),
    });
    const rotated = await cli.run(['keys', 'rotate', String(key.id)]);
    expect(rotated.stdout).toMatch(/^instavm_sk_/);
    expect((await cli.run(['ls'], { changes })).stderr).toContain('not valid');
    expect((await cli.run(['keys', 'rm', String(key.id)])).stdout).toBe(`${key.id} revoked\n`);
    expect(await cli.run(['keys', 'rm', String(key.id)])).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('there is no key'),
    });
    expect((await cli.run(['keys', 'create', 'x', '--metadata', 'a=b'])).stderr).toContain('--scope run');
  });
});

describe('instavm credit', PATIENCE, () => {
  it('tells what is left, used and costs, and adds to it', async () => {
    const left = await cli.run(['credit']);
    expect([left.code, left.stdout]).toEqual([0, expect.stringMatching(/^left {2}\$\d+\.\d\d\nused {2}\$/)]);
    expect(left.stderr).toContain('stops nobody');
    const balance = JSON.parse((await cli.run(['credit', '--json'])).stdout);
    expect(balance).toMatchObject({ isEnforced: false, overage: 0 });
    const added = await cli.run(['credit', 'add', '25', '--account', 'admin@localhost', '--note', 'paid', '--json']);
    expect(JSON.parse(added.stdout).remaining).toBeGreaterThan(balance.remaining + 20);
    expect((await cli.run(['credit', 'add', 'much'])).stderr).toContain('such as 25');
    expect(await cli.run(['credit', 'add', '1', '--account', 'x'])).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('no account'),
    });
    expect((await cli.run(['credit', 'usage'])).stdout).toMatch(/^DAY +COST[\s\S]*\nall +\$/);
    expect((await cli.run(['credit', 'rates'])).stdout).toContain('$0.05 an hour');
  });
});

describe('instavm quota', PATIENCE, () => {
  it('shows what an account may have and has, and changes it for the administrator', async () => {
    const own = await cli.run(['quota']);
    expect(own.stdout).toMatch(/^QUOTA +USED +LIMIT +OF WHAT\nsandboxes +\d+ +100 +that run at once\n/);
    const set = await cli.run(['quota', 'set', 'admin@localhost', 'sandboxes=90', 'requests=5000', '--json']);
    expect(JSON.parse(set.stdout).limits).toMatchObject({ sandboxes: 90, requestsPerMinute: 5_000 });
    const back = await cli.run(['quota', 'set', 'admin@localhost', 'sandboxes=default', 'requests=default', '--json']);
    expect(JSON.parse(back.stdout).limits).toMatchObject({ sandboxes: 100, requestsPerMinute: 120_000 });
    expect(await cli.run(['quota', 'set', 'x', 'elephants=1'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('sandboxes, vcpus'),
    });
  });
});
