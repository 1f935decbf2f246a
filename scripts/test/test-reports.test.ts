/** A failed test is named at the end of `npm test`, where people and build servers look. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { failuresInOutput, readVitestReport } from '../steps/test-reports.ts';

async function reportOf(text: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'instavm-report-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  const path = join(directory, 'vitest.json');
  await writeFile(path, text);
  return path;
}

test('a failed test of Vitest is named by its file, with the start of its reason and without colours', async () => {
  const passed = { fullName: 'it works', status: 'passed', failureMessages: [] };
  const failed = {
    fullName: 'it waits',
    status: 'failed',
    failureMessages: [`\u001b[31mError: late\u001b[39m\n${'at x\n'.repeat(50)}`],
  };
  const path = await reportOf(
    JSON.stringify({
      numPassedTests: 1,
      numFailedTests: 1,
      numPendingTests: 2,
      numTodoTests: 1,
      testResults: [
        { name: '/repo/a.test.ts', status: 'failed', message: '', assertionResults: [passed, failed] },
        { name: '/repo/b.test.ts', status: 'failed', message: 'Cannot find module', assertionResults: [] },
      ],
    }),
  );
  const counts = await readVitestReport(path, '/repo');
  expect(counts).toMatchObject({ passed: 1, failed: 1, skipped: 3 });
  expect(counts?.failures).toEqual([
    ['a.test.ts > it waits', '    Error: late', ...Array(7).fill('    at x')].join('\n'),
    'b.test.ts\n    Cannot find module',
  ]);
});

test.each(['', '{"numPassed', '{}'])('%j is no report', async (text) => {
  expect(await readVitestReport(await reportOf(text))).toBeUndefined();
});

test('failed tests of pytest and cargo are found in what they print', () => {
  const output = [
    'tests/test_cli.py ..F',
    '\u001b[31mFAILED\u001b[0m tests/test_cli.py::\u001b[1mtest_list[a - b]\u001b[0m - AssertionError: 1 == 2',
    'ERROR tests/test_cli.py::test_setup',
    'ERROR tests/test_broken.py - SyntaxError: invalid syntax',
    'test process::tests::ends ... FAILED\r',
    'test process::tests::starts ... ok',
    'ERROR: no such option',
  ].join('\n');
  expect(failuresInOutput(output)).toEqual([
    'tests/test_cli.py::test_list[a - b] - AssertionError: 1 == 2',
    'tests/test_cli.py::test_setup',
    'tests/test_broken.py - SyntaxError: invalid syntax',
    'process::tests::ends',
  ]);
});
