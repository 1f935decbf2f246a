/**
 * The tests on the real Firecracker and jailer, in a machine that stands for a KVM host (scripts/nested). A test runner like the others: its
 * counts come from the report that the machine hands back.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FirecrackerUnavailable, runNested } from '../nested/run.ts';
import { readVitestReport, type TestCounts } from './test-reports.ts';

export type NestedResult = TestCounts & { readonly ok: boolean };

/** Of the whole tier: only a hang takes as long. */
const LIMIT_MS = 45 * 60_000;
/** The repository inside of the machine. */
const MACHINE_ROOT = '/opt/instavm';
const JOB = `
exec node node_modules/vitest/vitest.mjs run --config tests/nested/vitest.config.ts --reporter=verbose --reporter=json \\
  --outputFile.json=/run/result/vitest.json
`;

/** @param directory keeps the machine's logs when something failed */
export async function runNestedTests(directory: string, env: Readonly<Record<string, string>>): Promise<NestedResult> {
  await rm(directory, { recursive: true, force: true });
  const nothing: TestCounts = { passed: 0, failed: 0, skipped: 0, failures: [] };
  try {
    const status = await runNested({
      script: JOB,
      limitMs: LIMIT_MS,
      directory,
      env,
      onOutput: (text) => process.stdout.write(text),
      onProgress: (message) => console.log(`${message} …`),
    });
    const counts = await readVitestReport(join(directory, 'result/vitest.json'), MACHINE_ROOT);
    const ok = status === 0 && counts !== undefined && counts.passed > 0;
    if (ok) await rm(directory, { recursive: true, force: true });
    else console.log(`The machine's logs are in ${directory}`);
    return { ...(counts ?? nothing), ok };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    console.log(error.message);
    // Where a build server runs the tests, they are not to be left out in silence.
    if (error instanceof FirecrackerUnavailable && !process.env.CI) return { ...nothing, skipped: 1, ok: true };
    return { ...nothing, ok: false };
  }
}
