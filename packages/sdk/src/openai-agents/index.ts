export { InstaVMSandboxClient } from './client.ts';
export type { InstaVMSandboxClientOptions } from './options.ts';
export { InstaVMSandboxSession } from './session.ts';
export type { InstaVMSandboxSessionState } from './state.ts';
