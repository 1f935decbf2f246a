/** Drives a check the way the gateway does: every byte once, in chunks of the test's choosing. */
import fc from 'fast-check';
import type { Agreement, AgreementCheck } from '../src/index.ts';

export type Outcome = {
  /** Everything that went on, also before a mismatch. */
  readonly sent: Buffer;
  readonly mismatch: string | undefined;
};

/** @param ended false: the guest's side stays open */
export function converse(check: AgreementCheck, chunks: readonly Buffer[], ended = true): Outcome {
  const sent: Buffer[] = [];
  const steps = [...chunks.map((chunk) => () => check.push(chunk)), ...(ended ? [() => check.end()] : [])];
  for (const step of steps) {
    const agreement = step();
    if ('mismatch' in agreement) return { sent: Buffer.concat(sent), mismatch: agreement.mismatch };
    sent.push(...agreement.forward);
  }
  return { sent: Buffer.concat(sent), mismatch: undefined };
}

export function forwarded(agreement: Agreement): string {
  if ('mismatch' in agreement) throw new Error(agreement.mismatch);
  return Buffer.concat([...agreement.forward]).toString('latin1');
}

export function mismatchOf(agreement: Agreement): string {
  if (!('mismatch' in agreement)) throw new Error(`Agreed to ${forwarded(agreement)}`);
  return agreement.mismatch;
}

/** @param cuts numbers in [0, 1), where to cut */
export function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const offsets = [0, ...cuts.map((cut) => Math.floor(cut * bytes.length)), bytes.length].sort((a, b) => a - b);
  return offsets.slice(1).map((end, index) => bytes.subarray(offsets[index], end));
}

export function bytewise(bytes: Buffer): Buffer[] {
  return Array.from(bytes, (_, index) => bytes.subarray(index, index + 1));
}

export const cuts = fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { maxLength: 12 });

/** Overwrites, inserts, removes or repeats a few bytes. */
export type Mutation = {
  readonly at: number;
  readonly kind: 'set' | 'insert' | 'remove' | 'repeat';
  readonly bytes: Uint8Array;
};

export const mutations = fc.array(
  fc.record({
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    kind: fc.constantFrom('set' as const, 'insert' as const, 'remove' as const, 'repeat' as const),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 4 }),
  }),
  { minLength: 1, maxLength: 4 },
);

export function mutate(bytes: Buffer, changes: readonly Mutation[]): Buffer {
  return changes.reduce((current, { at, kind, bytes: piece }) => {
    const offset = Math.floor(at * current.length);
    const kept = kind === 'insert' || kind === 'repeat' ? offset : offset + piece.length;
    const middle =
      kind === 'remove' ? Buffer.alloc(0) : kind === 'repeat' ? current.subarray(offset, offset + 40) : piece;
    return Buffer.concat([current.subarray(0, offset), middle, current.subarray(kept)]);
  }, bytes);
}
