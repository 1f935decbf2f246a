/** What the commands about custom domains have in common. */
import { type DomainInfo, InstaVMError } from 'instavm';
import { integer } from '../../arguments.ts';
import { printable, table } from '../../output.ts';

export const domainId = integer(1, Number.MAX_SAFE_INTEGER);

const HOUR = 3_600;
export const LONGEST_WAIT_SECONDS = 24 * HOUR;
export const DEFAULT_WAIT_SECONDS = 600;

export function recordsTable({ records: { txt, cname } }: DomainInfo): string {
  const rows = [
    ['TXT', txt.name, txt.value],
    ['CNAME', cname.name, cname.target],
  ];
  return table(['TYPE', 'NAME', 'VALUE'], rows);
}

/** @throws InstaVMError for one that failed: a script sees it by the status */
export function refuseFailed({ domain, error }: DomainInfo): void {
  // It quotes what was found in DNS.
  if (error !== null) throw new InstaVMError(error.code, printable(`${domain}: ${error.message}`));
}
