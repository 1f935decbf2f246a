/** One sandbox: what it is and does, in views that each have an address. */
import { type ComponentType, lazy, Suspense } from 'react';
import { Link } from 'wouter';
import { useSandbox } from '../../api/sandboxes.ts';
import type { Sandbox } from '../../api/types.ts';
import { Failure, Loading } from '../../components/notes.tsx';
import { Ago, StateBadge, shortId, span } from '../../components/text.tsx';
import { SandboxActions } from './actions.tsx';
import { EgressView } from './egress.tsx';
import { EventsView } from './events.tsx';
import { FilesView } from './files.tsx';
import { MetricsView } from './metrics.tsx';
import { PortsView } from './ports.tsx';
import { SnapshotsView } from './snapshots.tsx';

export type ViewProps = { readonly sandbox: Sandbox };

/** The terminal's code is large, and many visits do without it. */
const TerminalView = lazy(() => import('./terminal/index.tsx'));

const VIEWS: readonly (readonly [string, string, ComponentType<ViewProps>])[] = [
  ['terminal', 'Terminal', TerminalView],
  ['files', 'Files', FilesView],
  ['ports', 'Ports', PortsView],
  ['egress', 'Egress', EgressView],
  ['snapshots', 'Snapshots', SnapshotsView],
  ['metrics', 'Metrics', MetricsView],
  ['events', 'Events', EventsView],
];

export default function SandboxPage({ id, view }: { id: string; view: string }) {
  const sandbox = useSandbox(id);
  if (sandbox.isPending) return <Loading />;
  if (sandbox.isError && sandbox.data === undefined) return <Failure error={sandbox.error} />;
  const { data } = sandbox;
  const [, , View] = VIEWS.find(([name]) => name === view) ?? VIEWS[0] ?? [];
  const { name } = data.metadata;
  return (
    <>
      <div className="heading">
        <h1>{typeof name === 'string' && name !== '' ? name.slice(0, 60) : shortId(id)}</h1>
        <StateBadge state={data.state} />
        <SandboxActions sandbox={data} />
      </div>
      <p className="facts">
        <code>{id}</code>
        <span>
          {data.memory_mb} MiB, {data.vcpu_count} vCPU
        </span>
        <span>
          made <Ago at={data.created_at} />
        </span>
        {data.expires_at !== null && (
          <span>
            {data.auto_suspend ? 'suspended' : 'ends'} <Ago at={data.expires_at} />
          </span>
        )}
        {data.lease_left_seconds !== null && <span>{span(data.lease_left_seconds)} of its lifetime left</span>}
        {data.state_reason !== null && <span>{data.state_reason}</span>}
      </p>
      <nav className="views" aria-label="Views of the sandbox">
        {VIEWS.map(([key, title]) => (
          <Link
            key={key}
            href={`/sandboxes/${id}/${key}`}
            className="view"
            replace
            aria-current={key === view ? 'page' : undefined}
          >
            {title}
          </Link>
        ))}
      </nav>
      <Suspense fallback={<Loading />}>{View && <View sandbox={data} />}</Suspense>
    </>
  );
}
