/** From our client's errors to the SDK's. */
import {
  SandboxPathResolutionError,
  SandboxProviderError,
  SandboxWorkspaceReadNotFoundError,
} from '@openai/agents-core/sandbox';
import { InstaVMError } from '../errors.ts';

/** An error of a file operation on `path`. What is not ours is returned as it is. */
export function fileError(error: unknown, path: string): unknown {
  if (!(error instanceof InstaVMError)) return error;
  const details = { path, code: error.code };
  switch (error.code) {
    case 'file_not_found':
      return new SandboxWorkspaceReadNotFoundError(`not found: ${path}`, details);
    case 'file_is_a_directory':
    case 'file_not_a_file':
      return new SandboxProviderError(`not a file: ${path}`, details);
    case 'path_escape':
      return new SandboxPathResolutionError(`path leads out of the workspace: ${path}`, details);
    default:
      return providerError(error);
  }
}

/** The service failed or refused; `details.retryable` is true when the same call may work later. */
export function providerError(error: unknown): unknown {
  if (!(error instanceof InstaVMError)) return error;
  const { code, status, hint, requestId } = error;
  const details = { code, status, hint, requestId, retryable: error.retryable === 'yes' };
  return new SandboxProviderError(`InstaVM: ${error.message}`, details);
}

/** Whether the service says that the sandbox does not exist any more, as opposed to not answering. */
export const isGone = (error: unknown): boolean =>
  error instanceof InstaVMError && (error.code === 'sandbox_not_found' || error.status === 404 || error.status === 410);
