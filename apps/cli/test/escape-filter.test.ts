import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EscapeFilter } from '../src/escape-filter.ts';

const typed = (filter: EscapeFilter, ...pieces: string[]): [string, boolean] => {
  let text = '';
  for (const piece of pieces) {
    const { bytes, detach } = filter.push(Buffer.from(piece));
    text += Buffer.from(bytes).toString();
    if (detach) return [text, true];
  }
  return [text, false];
};

describe('the escape of a terminal', () => {
  it('detaches at the beginning of a line, however the bytes are cut', () => {
    expect(typed(new EscapeFilter('~'), '~.')).toEqual(['', true]);
    expect(typed(new EscapeFilter('~'), 'ls\r', '~', '.', 'more')).toEqual(['ls\r', true]);
  });

  it('is text anywhere else, and when typed twice', () => {
    expect(typed(new EscapeFilter('~'), 'ls ~.\r')).toEqual(['ls ~.\r', false]);
    expect(typed(new EscapeFilter('~'), '~~.\r')).toEqual(['~.\r', false]);
    expect(typed(new EscapeFilter('~'), '~/x\r')).toEqual(['~/x\r', false]);
    expect(typed(new EscapeFilter(undefined), '~.')).toEqual(['~.', false]);
  });

  it('changes nothing of a text without it', () => {
    const text = fc.string({ unit: fc.constantFrom('a', '.', '\r', '\n', 'é', '~') });
    fc.assert(
      fc.property(fc.array(text), (pieces) => {
        const whole = pieces.join('');
        fc.pre(!/(^|[\r\n])~/.test(whole));
        expect(typed(new EscapeFilter('~'), ...pieces)).toEqual([whole, false]);
      }),
    );
  });
});
