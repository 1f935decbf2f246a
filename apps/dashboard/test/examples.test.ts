/** The quickstart shows programs that the end-to-end tests run, without their first line. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const read = (path: string): Promise<string> => readFile(join(import.meta.dirname, '../../..', path), 'utf8');

describe('the quickstart', () => {
  it.each([
    ['examples/data-analyst.ts', 'analyst.ts.txt'],
    ['examples/data_analyst.py', 'analyst.py.txt'],
  ])('shows %s', async (example, shown) => {
    const [, ...lines] = (await read(example)).split('\n');
    expect(await read(`apps/dashboard/src/pages/examples/${shown}`)).toBe(lines.join('\n').trimStart());
  });
});
