/** What the sandbox uses now. The server keeps no history: the plots begin when the page is opened. */
import { useEffect, useState } from 'react';
import { useStats } from '../../api/sandboxes.ts';
import type { Stats } from '../../api/types.ts';
import { Empty, Failure, Loading } from '../../components/notes.tsx';
import { Plot } from '../../components/plot.tsx';
import { bytes, span } from '../../components/text.tsx';
import type { ViewProps } from './index.tsx';

const KEPT = 150;

export function MetricsView({ sandbox }: ViewProps) {
  const isRunning = sandbox.state === 'running';
  const stats = useStats(sandbox.id, isRunning);
  const [history, setHistory] = useState<readonly Stats[]>([]);
  const { data } = stats;
  useEffect(() => {
    if (data !== undefined) setHistory((before) => [...before, data].slice(-KEPT));
  }, [data]);
  if (!isRunning)
    return (
      <Empty title="Nothing to measure">
        <p>It does not run.</p>
      </Empty>
    );
  if (stats.isError) return <Failure error={stats.error} />;
  if (data === undefined) return <Loading />;
  const cpu = history.slice(1).map((now, index) => cpuShare(history[index] ?? now, now, sandbox.vcpu_count));
  const memory = history.map((each) => each.memory_total_bytes - each.memory_available_bytes);
  const disk = history.map((each) => each.disk_total_bytes - each.disk_free_bytes);
  return (
    <section aria-label="Metrics">
      <div className="plots">
        <Plot title="CPU" values={cpu} most={1} newest={`${Math.round((cpu.at(-1) ?? 0) * 100)} %`} />
        <Plot
          title="Memory"
          values={memory}
          most={data.memory_total_bytes}
          newest={`${bytes(memory.at(-1) ?? 0)} of ${bytes(data.memory_total_bytes)}`}
        />
        <Plot
          title="Disk"
          values={disk}
          most={data.disk_total_bytes}
          newest={`${bytes(disk.at(-1) ?? 0)} of ${bytes(data.disk_total_bytes)}`}
        />
      </div>
      <p className="muted">
        {data.processes} processes; up for {span(data.uptime_ms / 1000)}; {span(data.cpu_time_ms / 1000)} of CPU time so
        far. The plots begin when this page is opened. What went over the network is in the log under Egress.
      </p>
    </section>
  );
}

/** Of all its processors together. */
function cpuShare(before: Stats, now: Stats, vcpus: number): number {
  const elapsedMs = now.uptime_ms - before.uptime_ms;
  return elapsedMs <= 0 ? 0 : Math.max(0, (now.cpu_time_ms - before.cpu_time_ms) / (elapsedMs * vcpus));
}
