/** Variables for the commands of a VM from now on (contract §7). */
import { Env } from '@instavm/wire';
import { invalidFields } from '../errors.ts';

/** @throws invalid_argument for what is no environment, the present one included */
export function envOf(
  present: Readonly<Record<string, string>>,
  entries: readonly { readonly env_name: string; readonly value: string }[],
): Record<string, string> {
  const added = Object.fromEntries(entries.map(({ env_name, value }) => [env_name, value]));
  const parsed = Env.safeParse({ ...present, ...added });
  if (parsed.success) return parsed.data;
  throw invalidFields(
    parsed.error.issues.map(({ path, message }) => ({ path: ['entries', ...path].join('.'), message })),
  );
}
