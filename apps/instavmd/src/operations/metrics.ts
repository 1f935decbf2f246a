/**
 * What the daemon counts, for Prometheus. Labels are routes, states, codes and other words of ours, never an id, a name or an address.
 * docs/reference/metrics.md lists the same set. What is asked of others is asked when somebody scrapes.
 */
import { readdirSync } from 'node:fs';
import type { EgressRecord, VmmCounts } from '@instavm/core';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

const REQUEST_SECONDS = [0.005, 0.025, 0.1, 0.25, 1, 5, 30];
const STEP_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60];

/** What is read when somebody scrapes. */
export type Observed = {
  readonly sandboxesByState: () => Promise<Readonly<Record<string, number>>>;
  readonly warmMicroVms: () => number;
  readonly restores: () => { readonly active: number; readonly waiting: number };
  readonly meterLagSeconds: () => number;
  readonly availableMemoryMib: () => number;
  readonly freeDiskMib: () => number;
  readonly previewConnections: () => number;
};

const MIB = 1024 * 1024;

export class Metrics {
  readonly #registry = new Registry();
  readonly requests = new Histogram({
    name: 'instavm_http_request_duration_seconds',
    help: 'Requests of the API, from their head to the end of the answer.',
    labelNames: ['method', 'route', 'status'],
    buckets: REQUEST_SECONDS,
    registers: [this.#registry],
  });
  readonly errors = new Counter({
    name: 'instavm_errors_total',
    help: 'Errors that were answered, by their code.',
    labelNames: ['code'],
    registers: [this.#registry],
  });
  readonly steps = new Histogram({
    name: 'instavm_step_duration_seconds',
    help: 'Steps in the life of sandboxes and microVMs.',
    labelNames: ['step', 'source', 'outcome'],
    buckets: STEP_SECONDS,
    registers: [this.#registry],
  });
  readonly webSockets = new Gauge({
    name: 'instavm_websockets',
    help: 'WebSockets that are open, by what they carry.',
    labelNames: ['kind'],
    registers: [this.#registry],
  });
  readonly #egressConnections = new Counter({
    name: 'instavm_egress_connections_total',
    help: 'Attempts of guests to reach something, by how they ended.',
    labelNames: ['kind', 'outcome'],
    registers: [this.#registry],
  });
  readonly #egressBytes = new Counter({
    name: 'instavm_egress_bytes_total',
    help: 'Bytes between guests and the outside, as the guests see them.',
    labelNames: ['direction'],
    registers: [this.#registry],
  });

  readonly #seccompFaults = this.#counter(
    'instavm_vmm_seccomp_faults_total',
    'System calls of VMMs that their seccomp filter did not allow.',
  );
  readonly #vcpuFailures = this.#counter('instavm_vmm_vcpu_failures_total', 'vCPUs that could not run on.');
  readonly #diskThrottled = this.#counter(
    'instavm_vmm_disk_throttled_total',
    'Times that a guest had to wait for the rate of its disk.',
  );
  readonly #diskBytes = this.#counter(
    'instavm_vmm_disk_bytes_total',
    'Bytes between guests and their disks.',
    'direction',
  );
  readonly #channelBytes = this.#counter(
    'instavm_vmm_channel_bytes_total',
    'Bytes of the channels to guests, as the host sees them.',
    'direction',
  );

  /** Once: what there is to read. */
  observe(build: Readonly<Record<'version' | 'node' | 'backend' | 'accelerator', string>>, observed: Observed): void {
    const registers = [this.#registry];
    const info = new Gauge({
      name: 'instavm_build_info',
      help: 'What runs; always 1.',
      labelNames: Object.keys(build),
      registers,
    });
    info.set(build, 1);
    this.#gauge('instavm_warm_microvms', 'MicroVMs that wait for a request.', observed.warmMicroVms);
    this.#gauge('instavm_meter_lag_seconds', 'Age of what the ledger knows of what runs.', observed.meterLagSeconds);
    this.#gauge(
      'instavm_host_available_memory_bytes',
      'What the host can give without swapping.',
      () => observed.availableMemoryMib() * MIB,
    );
    this.#gauge(
      'instavm_host_free_disk_bytes',
      'Free on the disk of the data directory.',
      () => observed.freeDiskMib() * MIB,
    );
    this.#gauge('instavm_preview_connections', 'Connections to the preview listener.', observed.previewConnections);
    this.#labelled('instavm_sandboxes', 'Sandboxes that the database knows.', 'state', observed.sandboxesByState);
    this.#labelled('instavm_restores', 'MicroVMs that are restored, or wait for that.', 'stage', observed.restores);
    this.#process();
  }

  /** Begins with every error code, so that a rate is right from the first one on. */
  countErrorsOf(codes: readonly string[]): void {
    for (const code of codes) this.errors.inc({ code }, 0);
  }

  /** Of the journal of the egress gateway. */
  egress({ kind, outcome, bytesReceived }: EgressRecord): void {
    if (outcome === 'open') return;
    this.#egressConnections.inc({ kind, outcome });
    this.#egressBytes.inc({ direction: 'received' }, bytesReceived);
  }

  /** As they leave. */
  sent(bytes: number): void {
    this.#egressBytes.inc({ direction: 'sent' }, bytes);
  }

  /** Of a VMM that counts. */
  vmm(counts: VmmCounts): void {
    this.#seccompFaults.inc(counts.seccompFaults);
    this.#vcpuFailures.inc(counts.vcpuFailures);
    this.#diskThrottled.inc(counts.diskThrottled);
    this.#diskBytes.inc({ direction: 'read' }, counts.diskReadBytes);
    this.#diskBytes.inc({ direction: 'written' }, counts.diskWrittenBytes);
    this.#channelBytes.inc({ direction: 'received' }, counts.channelReceivedBytes);
    this.#channelBytes.inc({ direction: 'sent' }, counts.channelSentBytes);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** Under the names that dashboards for any process know. */
  #process(): void {
    this.#gauge('process_resident_memory_bytes', 'Memory of the daemon; its microVMs are not in it.', () =>
      process.memoryUsage.rss(),
    );
    this.#gauge('process_open_fds', 'Open file descriptors.', () => readdirSync('/proc/self/fd').length);
    this.#gauge('process_start_time_seconds', 'When it began, since the epoch.', () => performance.timeOrigin / 1000);
    this.#gauge('nodejs_heap_size_used_bytes', 'Heap of V8 in use.', () => process.memoryUsage().heapUsed);
    new Counter({
      name: 'process_cpu_seconds_total',
      help: 'Processor time of the daemon.',
      registers: [this.#registry],
      collect() {
        const { user, system } = process.cpuUsage();
        this.reset();
        this.inc((user + system) / 1e6);
      },
    });
    new Gauge({
      name: 'nodejs_eventloop_lag_seconds',
      help: 'How late the event loop is for what is due at once, when somebody scrapes.',
      registers: [this.#registry],
      async collect() {
        const asked = performance.now();
        await new Promise<void>((turn) => setImmediate(turn));
        this.set((performance.now() - asked) / 1000);
      },
    });
    let before = performance.eventLoopUtilization();
    this.#gauge('nodejs_eventloop_utilization', 'Share of time since the last scrape that it was busy.', () => {
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, before);
      before = now;
      return utilization;
    });
  }

  #counter(name: string, help: string, ...labelNames: string[]): Counter {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  #gauge(name: string, help: string, read: () => number): void {
    const collect = function (this: Gauge): void {
      this.set(read());
    };
    new Gauge({ name, help, registers: [this.#registry], collect });
  }

  #labelled(
    name: string,
    help: string,
    label: string,
    read: () => Readonly<Record<string, number>> | Promise<Readonly<Record<string, number>>>,
  ): void {
    const collect = async function (this: Gauge): Promise<void> {
      const values = await read();
      this.reset();
      for (const [value, count] of Object.entries(values)) this.set({ [label]: value }, count);
    };
    new Gauge({ name, help, labelNames: [label], registers: [this.#registry], collect });
  }
}
