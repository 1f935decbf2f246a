import { expect, test } from 'vitest';
import { Uids } from './uids.ts';

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
