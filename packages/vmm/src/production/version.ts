/** @param text a version, with whatever follows its numbers */
export function isAtLeast(text: string, wanted: readonly number[]): boolean {
  const found = (/^[\d.]+/.exec(text)?.[0] ?? '').split('.').map(Number);
  for (const [at, number] of wanted.entries()) {
    const difference = (found[at] ?? 0) - number;
    if (difference !== 0) return difference > 0;
  }
  return true;
}
