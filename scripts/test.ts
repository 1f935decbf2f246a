/** `npm test`: sets up, runs every test with each runner's own summary, and ends with one line over all of them. */
import { TestRun } from './steps/leftovers.ts';
import { setup } from './steps/setup.ts';
import { TEST_RUNNERS, type TestResult } from './steps/test-runners.ts';

// Runners get Ctrl-C from the terminal themselves; this process stays to say what they left.
process.on('SIGINT', () => {});

await setup({ python: true, tests: true });

const run = new TestRun();
const results: TestResult[] = [];
for (const runner of TEST_RUNNERS) {
  console.log(`\n── ${runner.name} ${'─'.repeat(Math.max(0, 100 - runner.name.length))}`);
  results.push(await runner.run(run.env));
}

const leftovers = await run.leftovers();
for (const { pid, command } of leftovers) console.error(`Left behind by a test, now ended: process ${pid}: ${command}`);
run.end(leftovers);
await run.remove();

console.log('');
for (const { runner, failures, ok } of results) {
  for (const failure of failures) console.log(`FAILED (${runner}) ${failure}\n`);
  if (!ok && failures.length === 0)
    console.log(`FAILED (${runner}) without a failed test: its output above says why\n`);
}
for (const { runner, passed, failed, skipped, ok } of results) {
  console.log(`${ok ? 'ok    ' : 'FAILED'} ${runner}: ${passed} passed, ${failed} failed, ${skipped} skipped`);
}
const sum = (count: 'passed' | 'failed' | 'skipped'): number =>
  results.reduce((total, result) => total + result[count], 0);
console.log(`${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped`);
process.exitCode = results.every((result) => result.ok) && leftovers.length === 0 ? 0 : 1;
