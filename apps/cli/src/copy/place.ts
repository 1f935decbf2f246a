/** Where a copy goes from and to: `SANDBOX:/path`, a local path, or `-`. */
import { basename } from 'node:path';
import { InstaVMError } from 'instavm';

export type Place =
  | { readonly kind: 'sandbox'; readonly sandbox: string; readonly path: string }
  | { readonly kind: 'local'; readonly path: string }
  | { readonly kind: 'stream' };

/** What could be the id of a sandbox before the colon, or anything before `:/`; a local file of such a name is written `./c0de:1`. */
const IN_SANDBOX = /^(vm_\w+|[0-9a-f]{4}[0-9a-f-]*|[^/:]+(?=:\/)):(.*)$/is;

/** @throws InstaVMError `invalid_argument` */
export function placeOf(text: string): Place {
  if (text === '-') return { kind: 'stream' };
  const [, sandbox, path] = IN_SANDBOX.exec(text) ?? [];
  if (sandbox === undefined || path === undefined) return { kind: 'local', path: text };
  if (!path.startsWith('/'))
    throw new InstaVMError('invalid_argument', `${text}: paths in a sandbox begin with /`, {
      hint: `Such as ${sandbox}:/root/${path}`,
    });
  return { kind: 'sandbox', sandbox, path };
}

/** Whether the contents of a directory are meant, and not it by its name: as cp(1) has `directory/.`. */
export const meansContents = (path: string): boolean => /(^|\/)\.{1,2}\/*$/.test(path);

/** @param intoDirectory the destination is a directory that is there, or written as one */
export function targetOf(source: string, destination: string, intoDirectory: boolean): string {
  if (!intoDirectory || meansContents(source)) return destination.replace(/(?<=.)\/+$/, '');
  return `${destination.replace(/\/+$/, '')}/${basename(source)}`;
}
