/** The next thing to type after a failure: the server's hints speak of routes, those here of commands. */
import type { InstaVMError } from 'instavm';

const HINTS: Readonly<Record<string, string>> = {
  sandbox_not_found: 'See which there are: npx instavm ls --all',
  incarnation_not_found: 'See which there are: npx instavm ls',
  snapshot_not_found: 'See which there are: npx instavm snapshot ls',
  pty_not_found: 'See which there are: npx instavm shell ls <sandbox>',
  pty_exists: 'Take another name, or come back to that one: npx instavm shell <sandbox> --attach <terminal>',
  share_not_found: 'See which there are: npx instavm share ls',
  domain_not_found: 'See which there are: npx instavm domain ls',
  key_not_found: 'See which there are: npx instavm keys ls',
  file_not_found: 'See what is there: npx instavm exec <sandbox> ls -la <directory>',
  invalid_state: 'See which there are, and their states: npx instavm ls --all',
  sandbox_suspended: 'Wake it: npx instavm resume <sandbox>',
  lease_expired: 'It has ended; make another with a longer --ttl: npx instavm new --ttl 2h',
  quota_exceeded: 'See what is used: npx instavm quota',
  credit_exhausted: 'See what is left: npx instavm credit',
  capacity_unavailable: 'End what is no longer needed (npx instavm rm <sandbox>), or try again later.',
};

/**
 * A hint that says more than its code's usual one (which quota) stays, with ours after it.
 * @param command that was run, like `instavm egress set`
 */
export function hintOf({ code, hint, status }: InstaVMError, command: string): string | undefined {
  if (code === 'unauthenticated' && status === 401)
    return 'The key may be revoked, or of another server. Get one with: npx instavm login --force';
  // Only where nothing listens; a name that does not resolve, say, has no daemon to start.
  if (code === 'connection_failed' && hint !== undefined)
    return 'Is the daemon running? Start it with: npx instavm serve';
  if (hint?.includes('GET /docs')) return `See what it takes: npx ${command} --help`;
  const own = HINTS[code];
  if (own === undefined) return hint;
  return code === 'quota_exceeded' && hint !== undefined ? `${hint} ${own}` : own;
}
