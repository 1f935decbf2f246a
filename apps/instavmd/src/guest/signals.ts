/** Signal numbers of the guest as the names that the API uses. */
import { SIGNALS } from '@instavm/wire';

const NAMES = new Map<number, string>(Object.entries(SIGNALS).map(([name, number]) => [number, name]));

/** @returns null for 0, which is no signal; `SIG<number>` for one without a name in the API */
export const signalName = (number: number): string | null =>
  number === 0 ? null : (NAMES.get(number) ?? `SIG${number}`);
