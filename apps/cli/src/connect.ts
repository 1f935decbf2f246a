/** Which server, with which key, and which sandbox an argument means. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { DEFAULT_BASE_URL, InstaVM, InstaVMError, type Sandbox } from 'instavm';
import { readProfile } from './profile.ts';

export type Connection = { readonly apiKey: string | undefined; readonly baseUrl: string };

/** @throws InstaVMError `unauthenticated` when there is no key anywhere */
export function clientOf(command: Command): InstaVM {
  const { apiKey, baseUrl } = connectionOf(command);
  return new InstaVM({ apiKey, baseUrl });
}

/** Flag, then environment, then what a login left, then the daemon on this machine (contract §17.1). */
export function connectionOf(command: Command): Connection {
  const { apiKey, baseUrl } = configured(command);
  return { apiKey: apiKey ?? localKey(), baseUrl };
}

/** Without the key of the daemon on this machine, which nobody chose. */
export function configured(command: Command): Connection {
  const flags = command.optsWithGlobals<{ apiKey?: string; baseUrl?: string }>();
  const stored = readProfile();
  return {
    apiKey: flags.apiKey || process.env.INSTAVM_API_KEY || stored.apiKey,
    baseUrl: (flags.baseUrl || process.env.INSTAVM_BASE_URL || stored.baseUrl || DEFAULT_BASE_URL).replace(/\/+$/, ''),
  };
}

/** What the daemon on this machine wrote on its first start. */
function localKey(): string | undefined {
  const directory = process.env.INSTAVM_DATA_DIR ?? join(homedir(), '.local', 'share', 'instavm');
  const path = join(directory, 'admin.key');
  try {
    const key = readFileSync(path, 'utf8').trim();
    console.error(`Using the key in ${path}`);
    return key;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'EACCES') return undefined;
    throw error;
  }
}

/** @param id of a sandbox (a UUID) or of its present microVM (`vm_…`). @throws InstaVMError `incarnation_not_found` */
export async function sandboxOf(client: InstaVM, id: string): Promise<Sandbox> {
  if (!id.startsWith('vm_')) return client.sandboxes.attach(id);
  const found = (await client.sandboxes.list()).find(({ incarnationId }) => incarnationId === id);
  if (found === undefined)
    throw new InstaVMError('incarnation_not_found', `there is no VM ${id}`, { hint: 'See: npx instavm ls' });
  return client.sandboxes.attach(found.id);
}
