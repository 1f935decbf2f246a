/** Which server, with which key, and which sandbox an argument means. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { DEFAULT_BASE_URL, InstaVM, InstaVMError, type Sandbox, type SnapshotInfo } from 'instavm';
import { readProfile } from './profile.ts';

export type Connection = { readonly apiKey: string | undefined; readonly baseUrl: string };

/** @throws InstaVMError `unauthenticated` when there is no key anywhere */
export function clientOf(command: Command): InstaVM {
  const { apiKey, baseUrl } = connectionOf(command);
  if (apiKey === undefined)
    throw new InstaVMError('unauthenticated', 'no API key', {
      hint: 'Get one with: npx instavm login (or set INSTAVM_API_KEY)',
    });
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

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const ID_BEGINNING = /^[0-9a-f]{4}[0-9a-f-]*$/i;

/**
 * @param id of a sandbox (a UUID), its first characters when no other one has the same (four at least), or that of its present microVM (`vm_…`)
 * @throws InstaVMError `incarnation_not_found`, `sandbox_not_found`, `invalid_argument`
 */
export async function sandboxOf(client: InstaVM, id: string): Promise<Sandbox> {
  if (UUID.test(id)) return client.sandboxes.attach(id);
  if (id.startsWith('vm_')) {
    const found = (await client.sandboxes.list({ ended: false })).find(({ incarnationId }) => incarnationId === id);
    if (found === undefined) throw new InstaVMError('incarnation_not_found', `there is no VM ${id}`);
    return client.sandboxes.attach(found.id);
  }
  if (!ID_BEGINNING.test(id))
    throw new InstaVMError('invalid_argument', `"${id}" is not the id of a sandbox`, {
      hint: 'It takes an id, its first characters (four at least), or that of a VM. See: npx instavm ls',
    });
  // What lasts comes first: thousands may have ended since it was made.
  const matching = async (page: { ended?: boolean }) =>
    (await client.sandboxes.list(page)).filter((one) => one.id.startsWith(id.toLowerCase()));
  const lasting = await matching({ ended: false });
  const [found, another] = lasting.length > 0 ? lasting : await matching({});
  if (found === undefined) throw new InstaVMError('sandbox_not_found', `there is no sandbox ${id}…`);
  if (another !== undefined)
    throw new InstaVMError('invalid_argument', `more than one sandbox begins with ${id}`, {
      hint: `Give more of the id: ${found.id}, ${another.id}`,
    });
  return client.sandboxes.attach(found.id);
}

/** @param name id or name; of several with the same name, the newest. @throws InstaVMError `snapshot_not_found` */
export async function snapshotOf(client: InstaVM, name: string): Promise<SnapshotInfo> {
  const snapshots = await client.snapshots.list();
  const found = snapshots.find(({ id }) => id === name) ?? snapshots.find((one) => one.name === name);
  if (found === undefined) throw new InstaVMError('snapshot_not_found', `there is no snapshot ${name}`);
  return found;
}
