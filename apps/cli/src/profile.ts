/** What a login left in `~/.instavm/config.json`, in the form that the official client reads and writes too (contract §17.2). */
import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { InstaVMError } from 'instavm';

export type Profile = { readonly apiKey: string | undefined; readonly baseUrl: string | undefined };

type Stored = Record<string, unknown>;

const configPath = (): string => join(homedir(), '.instavm', 'config.json');

/** Of the profile in use. @throws InstaVMError `invalid_configuration` */
export function readProfile(): Profile {
  const stored = activeProfile(readStored());
  const auth = objectIn(stored, 'auth');
  return { apiKey: textIn(auth, 'api_key'), baseUrl: textIn(stored, 'base_url') };
}

/** Keeps everything else that is in the file. */
export function writeProfile({ apiKey, baseUrl }: { readonly apiKey: string; readonly baseUrl: string }): string {
  const stored = readStored();
  const name = textIn(stored, 'active_profile') ?? 'default';
  const profile = { ...activeProfile(stored), auth: { type: 'api_key', api_key: apiKey }, base_url: baseUrl };
  const profiles = { ...objectIn(stored, 'profiles'), [name]: profile };
  const path = configPath();
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  chmodSync(dirname(path), 0o700);
  const contents = { schema_version: 1, ...stored, active_profile: name, profiles };
  // Whole or not at all.
  writeFileSync(`${path}.partial`, `${JSON.stringify(contents, null, 2)}\n`, { mode: 0o600, flush: true });
  renameSync(`${path}.partial`, path);
  return path;
}

function readStored(): Stored {
  const path = configPath();
  try {
    const parsed: unknown = JSON.parse(readFileSync(path, 'utf8'));
    if (typeof parsed === 'object' && parsed !== null) return parsed as Stored;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ENOTDIR')
      return {};
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new InstaVMError('invalid_configuration', `${path} is not a JSON object`, {
    hint: 'Mend or remove it, then log in again.',
  });
}

const activeProfile = (stored: Stored): Stored =>
  objectIn(objectIn(stored, 'profiles'), textIn(stored, 'active_profile') ?? 'default');

function objectIn(stored: Stored, name: string): Stored {
  const value = stored[name];
  return typeof value === 'object' && value !== null ? (value as Stored) : {};
}

function textIn(stored: Stored, name: string): string | undefined {
  const value = stored[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
}
