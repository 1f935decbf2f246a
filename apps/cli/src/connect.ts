/** Which server, with which key, and which sandbox an argument means. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { DEFAULT_BASE_URL, InstaVM, InstaVMError, type Sandbox, type SandboxInfo, type SnapshotInfo } from 'instavm';
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
 * @param text id of a sandbox (a UUID), its first characters when no other one has the same (four at least), that of its present microVM (`vm_…`),
 * or its name. A name comes before the beginning of an id, and is looked for among those only that have not ended
 * @throws InstaVMError `incarnation_not_found`, `sandbox_not_found`, `invalid_argument`
 */
export async function sandboxOf(client: InstaVM, text: string): Promise<Sandbox> {
  if (UUID.test(text)) return client.sandboxes.attach(text);
  const lasting = await client.sandboxes.list({ ended: false });
  const ofVm = lasting.find(({ incarnationId }) => incarnationId === text);
  if (ofVm) return client.sandboxes.attach(ofVm.id);
  const named = lasting.filter(({ metadata }) => metadata.name === text);
  if (named.length > 0) return client.sandboxes.attach(only(named, `is called ${text}`).id);
  if (text.startsWith('vm_')) throw new InstaVMError('incarnation_not_found', `there is no VM ${text}`);
  if (!ID_BEGINNING.test(text))
    throw new InstaVMError('sandbox_not_found', `there is no sandbox called ${text}`, {
      hint: 'It takes an id, its first characters (four at least), that of a VM, or a name. See: npx instavm ls',
    });
  const beginsSo = ({ id }: SandboxInfo) => id.startsWith(text.toLowerCase());
  // What lasts comes first: thousands may have ended since it was made.
  let matching = lasting.filter(beginsSo);
  if (matching.length === 0) matching = (await client.sandboxes.list({})).filter(beginsSo);
  if (matching.length === 0) throw new InstaVMError('sandbox_not_found', `there is no sandbox ${text}…`);
  return client.sandboxes.attach(only(matching, `begins with ${text}`).id);
}

/** @param what they have in common. @throws InstaVMError `invalid_argument`, when they are several */
function only(found: readonly SandboxInfo[], what: string): SandboxInfo {
  const [one, another] = found;
  if (one === undefined || another !== undefined)
    throw new InstaVMError('invalid_argument', `more than one sandbox ${what}`, {
      hint: `Give enough of an id: ${found.map(({ id }) => id).join(', ')}`,
    });
  return one;
}

/** @param name id or name; of several with the same name, the newest. @throws InstaVMError `snapshot_not_found` */
export async function snapshotOf(client: InstaVM, name: string): Promise<SnapshotInfo> {
  const snapshots = await client.snapshots.list();
  const found = snapshots.find(({ id }) => id === name) ?? snapshots.find((one) => one.name === name);
  if (found === undefined) throw new InstaVMError('snapshot_not_found', `there is no snapshot ${name}`);
  return found;
}
