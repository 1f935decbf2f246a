/** Ports of a sandbox as the Agents SDK asks for them. */
import {
  type ExposedPortEndpoint,
  normalizeExposedPort,
  recordExposedPortEndpoint,
  SandboxConfigurationError,
  SandboxExposedPortUnavailableError,
} from '@openai/agents-core/sandbox';
import { InstaVMError } from '../errors.ts';
import type { Sandbox } from '../sandbox.ts';
import { DEFAULT_LIFETIME_SECONDS } from './options.ts';
import type { InstaVMSandboxSessionState } from './state.ts';

/**
 * The endpoint of a port: public, or with `exposedPortsPublic: false` behind a token in `query`, which is not kept in the state.
 * The server is asked each time, and answers the same until the share is revoked.
 * @throws SandboxConfigurationError for a port that `exposedPorts` does not list; SandboxExposedPortUnavailableError
 */
export async function resolveExposedPort(
  sandbox: Sandbox,
  state: InstaVMSandboxSessionState,
  wanted: number,
): Promise<ExposedPortEndpoint> {
  const port = normalizeExposedPort(wanted);
  const { exposedPorts: declared = [], exposedPortsPublic: isPublic = true, timeout } = state.options;
  if (declared.length > 0 && !declared.includes(port))
    throw new SandboxConfigurationError(`port ${port} is not in exposedPorts`, { port, exposedPorts: declared });
  try {
    const share = await sandbox.shares.create({ port, isPublic });
    const endpoint = recordExposedPortEndpoint(state, endpointOf(share.url), port);
    if (isPublic) return endpoint;
    const link = await sandbox.shares.link(share.id, { ttlSeconds: timeout ?? DEFAULT_LIFETIME_SECONDS });
    return { ...endpoint, query: new URL(link.url).search.slice(1) };
  } catch (error) {
    if (!(error instanceof InstaVMError)) throw error;
    const { code, status, hint, message } = error;
    throw new SandboxExposedPortUnavailableError(`port ${port}: ${message}`, { port, code, status, hint });
  }
}

function endpointOf(url: string): ExposedPortEndpoint {
  const { hostname, port, protocol } = new URL(url);
  const tls = protocol === 'https:';
  return { host: hostname, port: port === '' ? (tls ? 443 : 80) : Number(port), tls };
}
