/** What the sandbox used over the last hour or more, as the server has seen it, and what it uses now. */
import { useMetrics, useStats } from '../../api/sandboxes.ts';
import type { Metrics, Stats } from '../../api/types.ts';
import { Empty, Failure, Loading } from '../../components/notes.tsx';
import { Plot } from '../../components/plot.tsx';
import { bytes, span } from '../../components/text.tsx';
import type { ViewProps } from './index.tsx';

export function MetricsView({ sandbox }: ViewProps) {
  const isRunning = sandbox.state === 'running';
  const metrics = useMetrics(sandbox.id, isRunning);
  const stats = useStats(sandbox.id, isRunning);
  if (metrics.isError) return <Failure error={metrics.error} />;
  if (metrics.data === undefined) return <Loading />;
  return (
    <section aria-label="Metrics">
      {metrics.data.samples.length > 1 ? (
        <Plots metrics={metrics.data} />
      ) : (
        <Empty title="Nothing measured yet">
          <p>{isRunning ? 'The first numbers come within a minute.' : 'It does not run.'}</p>
        </Empty>
      )}
      {isRunning && stats.isError && <Failure error={stats.error} />}
      {isRunning && stats.data && <Now stats={stats.data} />}
      <p className="muted">
        While this page is open the server looks every ten seconds, otherwise every minute. It keeps the newest 360
        looks, and forgets them when it is restarted.
      </p>
    </section>
  );
}

function Plots({ metrics }: { metrics: Metrics }) {
  const { samples, memory_total_bytes: memory, disk_total_bytes: disk } = metrics;
  const at = samples.map((sample) => new Date(sample.at));
  const newest = samples.at(-1);
  const rate = (name: 'egress' | 'preview', way: 'sent' | 'received') => ({
    name: way,
    values: samples.map((sample) => sample[`${name}_${way}_bytes`] / Math.max(1, sample.seconds)),
  });
  const total = (name: 'egress' | 'preview', way: 'sent' | 'received'): string =>
    bytes(samples.reduce((sum, sample) => sum + sample[`${name}_${way}_bytes`], 0));
  const both = (name: 'egress' | 'preview'): string => `${total(name, 'sent')} out, ${total(name, 'received')} in`;
  return (
    <div className="plots">
      <Plot
        title="CPU"
        at={at}
        lines={[{ name: '', values: samples.map(({ cpu }) => cpu) }]}
        most={1}
        show={percent}
        newest={percent(newest?.cpu ?? 0)}
      />
      <Plot
        title="Memory"
        at={at}
        lines={[{ name: '', values: samples.map((sample) => sample.memory_used_bytes) }]}
        most={Math.max(1, memory)}
        show={bytes}
        newest={`${bytes(newest?.memory_used_bytes ?? 0)} of ${bytes(memory)}`}
      />
      <Plot
        title="Disk"
        at={at}
        lines={[{ name: '', values: samples.map((sample) => sample.disk_used_bytes) }]}
        most={Math.max(1, disk)}
        show={bytes}
        newest={`${bytes(newest?.disk_used_bytes ?? 0)} of ${bytes(disk)}`}
      />
      <Plot
        title="Network"
        at={at}
        lines={[rate('egress', 'sent'), rate('egress', 'received')]}
        show={perSecond}
        newest={both('egress')}
      />
      <Plot
        title="Previews"
        at={at}
        lines={[rate('preview', 'sent'), rate('preview', 'received')]}
        show={perSecond}
        newest={both('preview')}
      />
    </div>
  );
}

const Now = ({ stats }: { stats: Stats }) => (
  <p>
    Now: {stats.processes === 1 ? '1 process' : `${stats.processes} processes`}; up for {span(stats.uptime_ms / 1000)};{' '}
    {span(stats.cpu_time_ms / 1000)} of CPU time so far.
  </p>
);

const percent = (part: number): string => `${Math.round(part * 100)} %`;
const perSecond = (count: number): string => `${bytes(count)}/s`;
