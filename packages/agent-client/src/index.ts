export { AgentClient } from './agent-client.ts';
export { AgentError } from './errors.ts';
export * from './gen/agent_pb.js';
export { guestSpans } from './guest-spans.ts';
export { ACKN, NONCE_BYTES, SYNC, synchronize } from './handshake.ts';
export { reset } from './http2-quirks.ts';
export type { TunnelOptions } from './tunnel.ts';
