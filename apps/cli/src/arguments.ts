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
