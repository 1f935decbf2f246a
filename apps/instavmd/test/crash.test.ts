/** The daemon is killed at every step of its lifecycle operations, over the fake, whose guests die with it. */
import { STEPS } from '@instavm/core';
import { describe, it } from 'vitest';
import { crashAndRecover } from './crash-matrix.ts';

describe.concurrent('a daemon that is killed', () => {
  it.each(STEPS)('at %s leaves nothing half-made to the next one', (step) => crashAndRecover('fake', step, false));
});
