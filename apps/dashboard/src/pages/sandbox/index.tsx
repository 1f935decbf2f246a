/** One sandbox: what it is and does, in views that each have an address. */
import { type ComponentType, lazy, Suspense } from 'react';
import { Link, Redirect } from 'wouter';
import { ApiError } from '../../api/http.ts';
import { hasEnded, useSandbox } from '../../api/sandboxes.ts';
import type { Sandbox } from '../../api/types.ts';
import { Failure, Loading } from '../../components/notes.tsx';
import { Nowhere, PageHead } from '../../components/page-head.tsx';
import { Ago, Lifetime, nameOf, StateBadge } from '../../components/text.tsx';
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
  if (sandbox.isError && sandbox.data === undefined) return <NoSandbox error={sandbox.error} />;
  const { data } = sandbox;
  const known = VIEWS.find(([name]) => name === view);
  if (known === undefined) return <Redirect to={`/sandboxes/${id}`} replace />;
  const [, viewTitle, View] = known;
  return (
    <>
      <PageHead title={nameOf(data)} view={viewTitle}>
        <StateBadge state={data.state} />
        <SandboxActions sandbox={data} />
      </PageHead>
      {sandbox.isError && <Failure error={sandbox.error} />}
      <p className="facts">
        <code>{id}</code>
        <span>
          {data.memory_mb} MiB, {data.vcpu_count} vCPU
        </span>
        <span>
          made <Ago at={data.created_at} />
        </span>
        {!hasEnded(data) && <Lifetime sandbox={data} />}
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
      <Suspense fallback={<Loading />}>
        <View sandbox={data} />
      </Suspense>
    </>
  );
}

const NoSandbox = ({ error }: { error: Error }) =>
  error instanceof ApiError && error.status === 404 ? (
    <Nowhere title="There is no such sandbox">
      <p>
        It never was, it ended long ago, or it belongs to another account. Go on from{' '}
        <Link href="/sandboxes">your sandboxes</Link>.
      </p>
    </Nowhere>
  ) : (
    <Failure error={error} />
  );
