/** What whoever runs this server sees of it: health, readiness and metrics, put together from the parts of the daemon. */
import type { HostResources, Meter, SandboxService, Templates, Vmm } from '@instavm/core';
import { countByState, type Database } from '@instavm/store';
import packageJson from '../../package.json' with { type: 'json' };
import type { Config } from '../config.ts';
import type { Guest } from '../guest/guest.ts';
import type { Metrics } from './metrics.ts';
import { Readiness } from './readiness.ts';

/** For whoever runs this server. */
export type Operations = {
  /** What `/healthz` tells. */
  readonly health: () => Record<string, unknown>;
  readonly readiness: Readiness;
  readonly metrics: Metrics;
  /** Opens `/metrics`; undefined: nothing does. */
  readonly metricsToken: string | undefined;
};

export type OperationParts = {
  readonly config: Config;
  readonly database: Database;
  readonly vmm: Vmm;
  readonly templates: Templates;
  readonly sandboxes: SandboxService<Guest>;
  readonly meter: Meter;
  readonly host: HostResources;
  readonly previews: { readonly connections: number } | undefined;
  readonly metrics: Metrics;
};

export function operationsOf(parts: OperationParts): Operations {
  const { config, database, vmm, templates, sandboxes, meter, host, previews, metrics } = parts;
  const { backend, accelerator } = vmm;
  metrics.observe(
    { version: packageJson.version, node: process.version, backend, accelerator },
    {
      sandboxesByState: () => countByState(database),
      warmMicroVms: () => sandboxes.warm,
      restores: () => sandboxes.restores,
      meterLagSeconds: () => (Date.now() - (meter.watchedUntil?.getTime() ?? Date.now())) / 1000,
      availableMemoryMib: () => host.availableMemoryMib(),
      freeDiskMib: () => host.freeDiskMib(),
      previewConnections: () => previews?.connections ?? 0,
    },
  );
  return {
    health: () => ({ backend, accelerator, warm: sandboxes.warm }),
    readiness: new Readiness({ database, vmm, templates }),
    metrics,
    metricsToken: config.INSTAVM_METRICS_TOKEN,
  };
}
