import { describe, expect, it } from 'vitest';
import { Shares } from '../src/shares.ts';
import type { PreviewTarget } from '../src/targets.ts';

const TARGET: PreviewTarget = {
  shareId: 'one',
  sandboxId: 'box',
  port: 80,
  isPublic: true,
  connect: () => Promise.reject(new Error('nobody connects')),
};

describe('a visitor who is judged while the share is made private', () => {
  // Each step of a promise on the way from the judgement into the share is a turn in which something else may be done.
  it.each(Array.from({ length: 12 }, (_, turns) => turns))(
    'is not inside afterwards, %i turns later',
    async (turns) => {
      const shares = new Shares(1, 1_000, { info: () => {}, warn: () => {} });
      let isPublic = true;
      let inside = 0;
      const visited = shares.judged(
        'one',
        async () => isPublic,
        (mayEnter) => {
          if (mayEnter) shares.enter(TARGET, 'public', () => inside--);
          if (mayEnter) inside++;
        },
      );
      for (let turn = 0; turn < turns; turn++) await null;
      isPublic = false;
      shares.withdraw('one', 'public');
      await visited;
      expect(inside).toBe(0);
      shares.close();
    },
  );
});
