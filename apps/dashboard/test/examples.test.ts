/** The quickstart shows programs that the end-to-end tests run. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PYTHON, TYPESCRIPT } from '../src/pages/examples.ts';

const example = (name: string): Promise<string> =>
  readFile(join(import.meta.dirname, '../../../examples', name), 'utf8');

describe('the quickstart', () => {
  it('shows the examples of the repository', async () => {
    expect((await example('data-analyst.ts')).endsWith(TYPESCRIPT)).toBe(true);
    expect((await example('data_analyst.py')).endsWith(PYTHON)).toBe(true);
  });
});
