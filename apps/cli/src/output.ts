/** What commands print: tables for people, JSON for programs. */

/** Columns as wide as their widest cell; nothing but the header when there are no rows. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd();
  return [line(header), ...rows.map(line)].join('\n');
}

export const printJson = (value: unknown): void => console.log(JSON.stringify(value));

/** Names and other text from a sandbox cannot move the cursor of the terminal they are listed on. */
export const printable = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be printed.
  text.replaceAll(/[\x00-\x1f\x7f-\x9f]/g, '\u{fffd}');

export function age(since: Date, now = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - since.getTime()) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3_600)} h`;
}

/** Cents, and more places for what is less than one. */
export const dollars = (amount: number): string =>
  amount !== 0 && Math.abs(amount) < 0.01 ? `$${amount.toFixed(6)}` : `$${amount.toFixed(2)}`;
