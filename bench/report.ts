/** Figures of the benchmark and their table for people. */
import { readFile } from 'node:fs/promises';

export type Row = {
  readonly name: string;
  readonly measured: string;
  readonly floor: string;
  readonly ratio: string;
  readonly target: string;
};

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** The value below which `share` percent of the values lie. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * share) / 100))] ?? Number.NaN;
}

/** @returns ms */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

export const ratio = (name: string, ours: number, floor: number, target: number): Row => ({
  name,
  measured: `${ours.toFixed(1)} ms`,
  floor: `${floor.toFixed(1)} ms`,
  ratio: (ours / floor).toFixed(2),
  target: `≤ ${target} × floor`,
});

/** Resident memory of a process. */
export async function rssMib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024;
}

/** Its share of the memory that it maps. */
export async function pssMib(pid: number): Promise<number> {
  const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1]) / 1024;
}

/** Markdown, so that it can be pasted into SPECIFICATION.md. */
export function table(rows: readonly Row[]): string {
  const header: Row = { name: 'figure', measured: 'measured', floor: 'floor', ratio: 'ratio', target: 'target' };
  const columns = ['name', 'measured', 'floor', 'ratio', 'target'] as const;
  const widths = columns.map((column) => Math.max(...[header, ...rows].map((row) => row[column].length), 3));
  const line = (row: Row): string =>
    `| ${columns.map((column, index) => row[column].padEnd(widths[index] ?? 0)).join(' | ')} |`;
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [line(header), rule, ...rows.map(line)].join('\n');
}
