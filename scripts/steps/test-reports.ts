/** What the test runners say of a run, read back: how many tests passed, and which failed and why. */
import { readFile } from 'node:fs/promises';
import { relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { z } from 'zod';
import { ROOT } from './paths.ts';

export type TestCounts = {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** One text for each failed test, or file that did not load: its name on the first line, then the start of the reason. */
  readonly failures: readonly string[];
};

/** Of a failure's reason; the whole of it stands in the runner's own output. */
const REASON_LINES = 8;
const REASON_LINE_CHARACTERS = 600;

const VitestReport = z.object({
  numPassedTests: z.number(),
  numFailedTests: z.number(),
  numPendingTests: z.number(),
  numTodoTests: z.number(),
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      message: z.string(),
      assertionResults: z.array(
        z.object({ fullName: z.string(), status: z.string(), failureMessages: z.array(z.string()) }),
      ),
    }),
  ),
});

/**
 * Reads what Vitest's JSON reporter wrote.
 * @param root directory that the report's file names are below
 * @returns undefined when there is no report, or half of one: the runner was ended before it wrote it
 */
export async function readVitestReport(path: string, root = ROOT): Promise<TestCounts | undefined> {
  const text = await readFile(path, 'utf8').catch(() => '');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const report = VitestReport.safeParse(value).data;
  if (!report) return undefined;
  const failures = report.testResults.flatMap(({ name, status, message, assertionResults }) => {
    const file = relative(root, name);
    const failed = assertionResults.filter((result) => result.status === 'failed');
    if (status === 'failed' && failed.length === 0) return [failure(file, message)];
    return failed.map((result) => failure(`${file} > ${result.fullName}`, result.failureMessages.join('\n')));
  });
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests,
    skipped: report.numPendingTests + report.numTodoTests,
    failures,
  };
}

/** The failed tests that pytest's short summary or cargo's list names, with the reason where they give it. @param output with or without colours */
export function failuresInOutput(output: string): string[] {
  const lines = stripVTControlCharacters(output).split(/\r?\n/);
  return lines.flatMap((line) => {
    const name = /^(?:FAILED|ERROR) (\S+(?:::|\.py).*)$/.exec(line) ?? /^test (\S+) \.\.\. FAILED$/.exec(line);
    return name?.[1] ?? [];
  });
}

function failure(name: string, reason: string): string {
  const lines = stripVTControlCharacters(reason).split('\n').filter(Boolean).slice(0, REASON_LINES);
  return [name, ...lines.map((line) => `    ${line.slice(0, REASON_LINE_CHARACTERS)}`)].join('\n');
}
