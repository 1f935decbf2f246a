/** Failures as the real agent reports them: a gRPC status with the reason in a trailer (docs/reference/agent-errors.md). */
import { Code, ConnectError } from '@connectrpc/connect';

export const failure = (reason: string, message: string, code: Code = Code.FailedPrecondition): ConnectError =>
  new ConnectError(message, code, { 'instavm-reason': reason });

const BY_ERRNO: Readonly<Record<string, string>> = {
  EACCES: 'permission_denied',
  EEXIST: 'exists',
  EINVAL: 'invalid_path',
  EISDIR: 'is_a_directory',
  ELOOP: 'too_many_links',
  ENAMETOOLONG: 'invalid_path',
  ENOENT: 'not_found',
  ENOSPC: 'no_space',
  ENOTDIR: 'not_a_directory',
  ENOTEMPTY: 'not_empty',
  EPERM: 'permission_denied',
};

export function ofErrno(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  const { code = '', message = String(error) } = error as NodeJS.ErrnoException;
  return failure(BY_ERRNO[code] ?? 'io_error', message);
}
