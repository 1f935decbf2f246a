import { spawn } from 'node:child_process';
import { expect, test } from 'vitest';
import { strangersAmong, Uids } from './uids.ts';

test('no two jails have one uid, and a full range says so', () => {
  const uids = new Uids({ first: 300_000, count: 3 });
  uids.claim(300_001);
  expect([uids.take(), uids.take()]).toEqual([300_000, 300_002]);
  expect(() => uids.take()).toThrow('all 3 user ids');
});

test('a released uid comes back last', () => {
  const uids = new Uids({ first: 300_000, count: 3 });
  uids.release(uids.take());
  expect([uids.take(), uids.take(), uids.take()]).toEqual([300_001, 300_002, 300_000]);
});

test('a process with a user of the range that is in no jail of this daemon is found', async (context) => {
  if (process.getuid?.() !== 0) return context.skip('only root can start a process of another user');
  const range = { first: 1_900_039_990, count: 10 };
  expect(await strangersAmong(range, 'instavm-mine')).toEqual([]);
  const stranger = spawn('sleep', ['60'], { uid: 1_900_039_999, gid: 1_900_039_999, stdio: 'ignore' });
  try {
    await expect.poll(() => strangersAmong(range, 'instavm-mine')).toEqual([stranger.pid]);
    expect(await strangersAmong({ ...range, count: 9 }, 'instavm-mine')).toEqual([]);
  } finally {
    stranger.kill('SIGKILL');
  }
});
