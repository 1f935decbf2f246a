/** The test runners of the repository, each with its own summary on the terminal and its counts for the closing line. */
import { mkdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { runNestedTests } from './nested-tests.ts';
import { AGENT_DIRECTORY, LOCAL_CACHE, ROOT } from './paths.ts';
import { type PythonEnvironment, pythonPath } from './python-environments.ts';
import { runAndCapture, runVisibly } from './run.ts';
import { failuresInOutput, readVitestReport, type TestCounts } from './test-reports.ts';

export type TestResult = TestCounts & {
  readonly runner: string;
  /** The runner's own verdict; it may fail without a failed test, as when a file does not load. */
  readonly ok: boolean;
};

export type TestRunner = {
  readonly name: string;
  readonly run: (env: Readonly<Record<string, string>>) => Promise<TestResult>;
};

const NO_TESTS: TestCounts = { passed: 0, failed: 0, skipped: 0, failures: [] };
const REPORTS = join(LOCAL_CACHE, 'test-reports');

/** Which tests run in which Python environment; the same suite holds our package to one behaviour on both SDKs. */
const PYTEST_SUITES: readonly { readonly environment: PythonEnvironment; readonly path: string }[] = [
  { environment: 'current', path: 'python/tests' },
  { environment: 'agents-0.14.1', path: 'python/tests' },
  { environment: 'current', path: 'tests/terminals' },
  { environment: 'current', path: 'tests/openapi' },
  { environment: 'official', path: 'tests/clients/official' },
];

const NESTED = 'vitest on Firecracker (nested)';

export const TEST_RUNNERS: readonly TestRunner[] = [
  { name: 'vitest', run: runVitest },
  { name: 'cargo test', run: runCargoTest },
  { name: NESTED, run: async (env) => ({ runner: NESTED, ...(await runNestedTests(join(REPORTS, 'nested'), env)) }) },
  ...PYTEST_SUITES.map(({ environment, path }) => ({
    name: `pytest ${path} (${environment})`,
    run: (env: Readonly<Record<string, string>>) => runPytest(environment, path, env),
  })),
];

async function runVitest(env: Readonly<Record<string, string>>): Promise<TestResult> {
  const report = await freshReport('vitest.json');
  const args = ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const ended = await runVisibly(process.execPath, [join(ROOT, 'node_modules/vitest/vitest.mjs'), ...args], {
    cwd: ROOT,
    env,
  });
  const counts = await readVitestReport(report);
  return { runner: 'vitest', ...(counts ?? NO_TESTS), ok: ended === 0 && counts !== undefined };
}

async function runCargoTest(env: Readonly<Record<string, string>>): Promise<TestResult> {
  const { ended, output } = await runAndCapture('cargo', ['test', '--locked', '--color=always'], {
    cwd: AGENT_DIRECTORY,
    env,
  });
  let [passed, failed, skipped] = [0, 0, 0];
  for (const line of output.matchAll(/(\d+) passed; (\d+) failed; (\d+) ignored/g)) {
    passed += Number(line[1]);
    failed += Number(line[2]);
    skipped += Number(line[3]);
  }
  return { runner: 'cargo test', passed, failed, skipped, failures: failuresInOutput(output), ok: ended === 0 };
}

async function runPytest(
  environment: PythonEnvironment,
  path: string,
  env: Readonly<Record<string, string>>,
): Promise<TestResult> {
  const report = await freshReport(`pytest-${environment}-${path.replaceAll('/', '-')}.xml`);
  const args = ['-m', 'pytest', '-p', 'no:cacheprovider', `--junitxml=${report}`, path];
  const { ended, output } = await runAndCapture(pythonPath(environment), args, { cwd: ROOT, env });
  const attributes = /<testsuite [^>]*>/.exec(await readFile(report, 'utf8').catch(() => ''))?.[0] ?? '';
  const count = (name: string): number => Number(new RegExp(` ${name}="(\\d+)"`).exec(attributes)?.[1] ?? 0);
  const failed = count('failures') + count('errors');
  const skipped = count('skipped');
  return {
    runner: `pytest ${path} (${environment})`,
    passed: count('tests') - failed - skipped,
    failed,
    skipped,
    failures: failuresInOutput(output),
    ok: ended === 0,
  };
}

/** A report path without an earlier run's report in it. */
async function freshReport(name: string): Promise<string> {
  const path = join(REPORTS, name);
  await mkdir(dirname(path), { recursive: true });
  await rm(path, { force: true });
  return path;
}
