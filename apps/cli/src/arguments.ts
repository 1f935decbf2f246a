/** Values of options: each checks itself and says what would be right. */
import { InvalidArgumentError } from 'commander';

export const integer =
  (least: number, most: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidArgumentError(`It takes a whole number from ${least} to ${most}.`);
    return value;
  };

export const oneOf =
  <Value extends number>(values: readonly Value[]) =>
  (text: string): Value => {
    const value = values.find((one) => String(one) === text);
    if (value === undefined) throw new InvalidArgumentError(`It takes ${values.join(', ')}.`);
    return value;
  };

const SECONDS = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** `90`, `90s`, `15m`, `2h` or `7d`, in seconds. */
export const duration =
  (mostSeconds: number, leastSeconds = 1) =>
  (text: string): number => {
    const [, count, unit = 's'] = /^(\d{1,9})([smhd])?$/.exec(text) ?? [];
    const seconds = Number(count) * SECONDS[unit as keyof typeof SECONDS];
    if (!(seconds >= leastSeconds && seconds <= mostSeconds)) {
      const least = leastSeconds > 1 ? `from ${leastSeconds}s ` : '';
      throw new InvalidArgumentError(
        `It takes a time such as 90s, 15m, 2h or 7d, ${least}up to ${mostSeconds / SECONDS.d}d.`,
      );
    }
    return seconds;
  };

/** `NAME=value`, repeatable. */
export function assignment(text: string, before: Record<string, string> = {}): Record<string, string> {
  const [, name, value] = /^([A-Za-z_][A-Za-z0-9_]*)=([\s\S]*)$/.exec(text) ?? [];
  if (name === undefined || value === undefined) throw new InvalidArgumentError('It takes NAME=value.');
  return { ...before, [name]: value };
}

/** Repeatable. */
export const repeated = (text: string, before: string[] = []): string[] => [...before, text];

/** One printable character, or "none". */
export function escapeCharacter(text: string): string | undefined {
  if (text === 'none') return undefined;
  if (!/^[!-~]$/.test(text)) throw new InvalidArgumentError('It takes one printable character, or "none".');
  return text;
}

const SIZES = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

/** `1000`, `64k`, `500m` or `4g`, in bytes. */
export function bytes(text: string): number {
  const [, count, unit = ''] = /^(\d{1,12})([kmg])?$/i.exec(text) ?? [];
  const value = Number(count) * SIZES[unit.toLowerCase() as keyof typeof SIZES];
  if (!(value >= 1)) throw new InvalidArgumentError('It takes a size such as 64k, 500m or 4g.');
  return value;
}
