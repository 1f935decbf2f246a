/** What the server knows by name, for completion: the names of arguments say what is asked for. */
import type { InstaVM } from 'instavm';
import { sandboxOf } from '../connect.ts';
import { printable } from '../output.ts';
import type { Candidate } from './candidates.ts';

type Ask = (client: InstaVM, before: readonly string[]) => Promise<Candidate[]>;

const sandboxes: Ask = async (client) => {
  const running = await client.sandboxes.list({ ended: false });
  return running.map(({ id, state, memoryMb, metadata }) => {
    const name = typeof metadata.name === 'string' ? `${metadata.name}, ` : '';
    return [id, `${name}${state}, ${memoryMb} MiB`];
  });
};

const places: Ask = async (client, before) =>
  (await sandboxes(client, before)).map(([id, description]) => [`${id}:/`, description]);

const BY_KIND: Readonly<Record<string, Ask>> = {
  sandbox: sandboxes,
  place: places,
  snapshot: async (client) => (await client.snapshots.list()).map(({ id, name, status }) => [id, `${name}, ${status}`]),
  terminal: async (client, [sandbox = '']) =>
    (await (await sandboxOf(client, sandbox)).pty.list()).map(({ id, argv }) => [id, argv.join(' ')]),
  share: async (client) =>
    (await client.shares.list()).map(({ id, port, sandboxId }) => [id, `${port} of ${sandboxId}`]),
  domain: async (client) =>
    (await client.domains.list()).map(({ id, domain, status }) => [String(id), `${domain}, ${status}`]),
  key: async (client) => (await client.keys.list()).map(({ id, name, scope }) => [String(id), `${name}, ${scope}`]),
};

/** @throws InstaVMError */
export async function knownTo(client: InstaVM, kind: string, before: readonly string[]): Promise<readonly Candidate[]> {
  const ask = BY_KIND[kind];
  if (ask === undefined) return [];
  return (await ask(client, before)).map(([value, description]) => [value, printable(description).slice(0, 80)]);
}
