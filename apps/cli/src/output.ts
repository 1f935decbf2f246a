/** What commands print: tables for people, JSON for programs. */
import { styleText } from 'node:util';
import stringWidth from 'string-width';

const SHORTEST_CUT = 8;

export type TableOptions = {
  /** Columns that are left out first when the terminal is too narrow, in this order. */
  readonly spare?: readonly string[];
  /** Columns whose cells are cut then: those that nobody copies. */
  readonly cut?: readonly string[];
  /** Of the terminal; nothing is left out or cut where there is none. */
  readonly width?: number | undefined;
};

/**
 * Columns as wide as their widest cell; nothing but the header when there are no rows. What does not fit into the terminal even without the
 * spare columns is shown one line for each cell, so that nothing that may be copied is lost.
 */
export function table(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  { spare = [], cut = [], width = terminalWidth() }: TableOptions = {},
): string {
  if (width === undefined) return aligned(header, rows, widthsOf(header, rows));
  let shown = header.map((_, column) => column);
  const pick = (cells: readonly string[]): string[] => shown.map((column) => cells[column] ?? '');
  const widths = (): number[] => widthsOf(pick(header), rows.map(pick));
  for (const title of spare) {
    if (total(widths()) <= width) break;
    shown = shown.filter((column) => header[column] !== title);
  }
  const fitting = widths();
  for (const title of cut) {
    const at = shown.findIndex((column) => header[column] === title);
    const excess = total(fitting) - width;
    if (at < 0 || excess <= 0) continue;
    fitting[at] = Math.max(SHORTEST_CUT, (fitting[at] ?? 0) - excess);
  }
  return total(fitting) <= width ? aligned(pick(header), rows.map(pick), fitting) : records(header, rows);
}

const terminalWidth = (): number | undefined => (process.stdout.isTTY ? process.stdout.columns : undefined);

const total = (widths: readonly number[]): number => widths.reduce((sum, one) => sum + one + 2, -2);

const widthsOf = (header: readonly string[], rows: readonly (readonly string[])[]): number[] =>
  header.map((title, column) => Math.max(stringWidth(title), ...rows.map((row) => stringWidth(row[column] ?? ''))));

function aligned(header: readonly string[], rows: readonly (readonly string[])[], widths: readonly number[]): string {
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => padded(cell, widths[column] ?? 0))
      .join('  ')
      .trimEnd();
  return [styleText('bold', line(header)), ...rows.map(line)].join('\n');
}

function records(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const longest = Math.max(...header.map((title) => stringWidth(title)));
  const record = (row: readonly string[]): string =>
    header
      .map((title, column) => `${styleText('bold', padded(title, longest))}  ${row[column] ?? ''}`.trimEnd())
      .join('\n');
  return rows.length === 0 ? header.join('  ') : rows.map(record).join('\n\n');
}

function padded(text: string, width: number): string {
  const fitting = cutTo(text, width);
  return fitting + ' '.repeat(width - stringWidth(fitting));
}

/** As it is when it fits; otherwise its beginning and "…". */
function cutTo(text: string, width: number): string {
  if (stringWidth(text) <= width) return text;
  let kept = '';
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (stringWidth(kept + segment) > width - 1) break;
    kept += segment;
  }
  return `${kept}…`;
}

/**
 * Of rows that come one at a time: their columns have a width of their own, the last one what is left. Those with a least width are cut on a
 * terminal, down to that where it is narrow; in the others longer cells move those behind them.
 */
export type Columns = readonly (readonly [title: string, width: number, least?: number])[];

const INDENT = 2;

/** In a terminal that is too narrow, a row is several lines, each with the columns that fit into it. @param width of the terminal; undefined where there is none */
export function rowOf(columns: Columns, cells: readonly string[], width = terminalWidth()): string {
  if (width === undefined) return lineOf(columns.map(([, own], at) => [cells[at] ?? '', own]));
  const lines = layoutOf(columns, width).map((line, number) => {
    const indent = number === 0 ? 0 : INDENT;
    const text = lineOf(
      line.map(({ at, own }, place) => {
        const cell = cells[at] ?? '';
        const isCut = columns[at]?.[2] !== undefined && place < line.length - 1;
        return [isCut ? cutTo(cell, own) : cell, own];
      }),
    );
    return ' '.repeat(indent) + cutTo(text, width - indent);
  });
  return lines.filter((line, number) => number === 0 || line.trim() !== '').join('\n');
}

/** A cell begins where its column does, or behind a longer one before it. */
function lineOf(cells: readonly (readonly [text: string, width: number])[]): string {
  let line = '';
  let start = 0;
  for (const [text, width] of cells) {
    const own = stringWidth(line);
    const gap = own === 0 ? start : Math.max(start - own, 2);
    if (text !== '') line += ' '.repeat(gap) + text;
    start += width + 2;
  }
  return line;
}

type Placed = { readonly at: number; readonly own: number };

/** One line where that is wide enough for all, with columns cut to their least where it must be; else as many as it takes. */
function layoutOf(columns: Columns, width: number): readonly (readonly Placed[])[] {
  const own = columns.map(([, wanted, least = 0]) => wanted || least);
  for (let at = columns.length - 1; at >= 0 && total(own) > width; at--) {
    const least = columns[at]?.[2] ?? Infinity;
    own[at] = Math.max(Math.min(least, own[at] ?? 0), (own[at] ?? 0) - (total(own) - width));
  }
  if (total(own) <= width) return [own.map((each, at) => ({ at, own: each }))];
  const lines: Placed[][] = [[]];
  columns.forEach(([, wanted, least = 0], at) => {
    const placed = { at, own: wanted || least };
    const line = lines.at(-1) ?? [];
    const room = width - (lines.length > 1 ? INDENT : 0);
    if (line.length === 0 || total([...line.map((each) => each.own), placed.own]) <= room) line.push(placed);
    else lines.push([placed]);
  });
  return lines;
}

export const headerOf = (columns: Columns, width = terminalWidth()): string =>
  styleText(
    'bold',
    rowOf(
      columns,
      columns.map(([title]) => title),
      width,
    ),
  );

export const printJson = (value: unknown): void => console.log(JSON.stringify(value));

/** Names and other text from a sandbox can neither move the cursor of the terminal they are listed on nor turn the direction of writing. */
export const printable = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be printed.
  text.replaceAll(/[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, '\u{fffd}');

export function age(since: Date, now = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - since.getTime()) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** Cents, and more places for what is less than one. */
export const dollars = (amount: number): string =>
  amount !== 0 && Math.abs(amount) < 0.01 ? `$${amount.toFixed(6)}` : `$${amount.toFixed(2)}`;

/** Decimal, with one place from the kilobyte on. */
export function size(bytes: number): string {
  if (bytes < 1_000) return `${bytes} B`;
  const step = Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1_000 ** step).toFixed(1)} ${['B', 'kB', 'MB', 'GB', 'TB'][step]}`;
}
