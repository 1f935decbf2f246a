/** The egress gateway as the daemon's configuration wants it. */
import type { EgressPolicy, EgressRecord, LifecycleLog, SandboxId } from '@instavm/core';
import { Gateway, PUBLIC_REGISTRIES, Resolver } from '@instavm/egress';
import type { Config } from './config.ts';

const BITS_PER_BYTE = 8;
const NOTHING: EgressPolicy = {
  allowHttp: false,
  allowHttps: false,
  allowPublicRepos: false,
  allowedDomains: [],
  allowedCidrs: [],
};

const DEFAULTS: Readonly<Record<Config['INSTAVM_EGRESS_DEFAULT'], EgressPolicy>> = {
  deny: NOTHING,
  packages: { ...NOTHING, allowPublicRepos: true },
  open: { ...NOTHING, allowHttp: true, allowHttps: true, allowPublicRepos: true },
};

/** @param record called for every connection and denial of every sandbox */
export const createGateway = (
  config: Config,
  record: (sandboxId: SandboxId, record: EgressRecord) => void,
  log: LifecycleLog,
): Gateway =>
  new Gateway({
    defaultPolicy: DEFAULTS[config.INSTAVM_EGRESS_DEFAULT],
    registries: config.INSTAVM_EGRESS_REGISTRIES ?? PUBLIC_REGISTRIES,
    resolver: new Resolver(config.INSTAVM_EGRESS_DNS),
    proxy: config.INSTAVM_EGRESS_PROXY,
    maxConnections: config.INSTAVM_EGRESS_CONNECTIONS,
    bytesPerSecond: config.INSTAVM_EGRESS_MBIT === 0 ? Infinity : (config.INSTAVM_EGRESS_MBIT * 1e6) / BITS_PER_BYTE,
    record,
    log,
  });
