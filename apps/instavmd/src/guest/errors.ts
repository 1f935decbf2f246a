/** From what the guest agent or its channel said to the public catalog. */
import { AgentError } from '@instavm/agent-client';
import { type ErrorCode, InstaVMError } from '@instavm/wire';

const CODES: Readonly<Record<string, ErrorCode>> = {
  archive_invalid: 'archive_invalid',
  archive_limit: 'archive_limit',
  command_not_found: 'command_not_found',
  cwd_not_found: 'cwd_not_found',
  exists: 'file_exists',
  group_unknown: 'group_unknown',
  invalid_path: 'invalid_path',
  invalid_request: 'invalid_argument',
  io_error: 'file_io_error',
  is_a_directory: 'file_is_a_directory',
  no_space: 'guest_disk_full',
  not_a_directory: 'file_not_a_directory',
  not_a_file: 'file_not_a_file',
  not_empty: 'file_not_empty',
  not_found: 'file_not_found',
  path_escape: 'path_escape',
  permission_denied: 'file_permission_denied',
  process_limit: 'process_limit',
  pty_exists: 'pty_exists',
  pty_input_full: 'pty_input_full',
  pty_not_found: 'pty_not_found',
  python_unavailable: 'python_unavailable',
  port_refused: 'port_not_listening',
  too_many_execs: 'too_many_execs',
  too_many_links: 'file_too_many_links',
  too_many_ptys: 'too_many_ptys',
  too_many_tunnels: 'rate_limited',
  too_many_viewers: 'too_many_viewers',
  user_unknown: 'user_unknown',
  watch_limit: 'watch_limit',
  // ours, for the channel
  channel_lost: 'guest_lost',
  cancelled: 'guest_lost',
  deadline: 'guest_unresponsive',
};

export function guestError(error: unknown): InstaVMError {
  if (error instanceof InstaVMError) return error;
  const failure = AgentError.from(error);
  // The word is the guest's, and every object has a `constructor`.
  const known = Object.hasOwn(CODES, failure.reason) ? CODES[failure.reason] : undefined;
  const code = known ?? 'guest_protocol';
  const message =
    code === 'guest_lost' ? 'the sandbox ended, or its channel broke, before it answered' : failure.message;
  return new InstaVMError(code, message, { cause: error });
}

/** Runs a call to the guest; its errors leave as ours. */
export async function askGuest<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw guestError(error);
  }
}
