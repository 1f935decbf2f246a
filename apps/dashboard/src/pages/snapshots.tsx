/** All snapshots of the account. */
import { useSnapshots } from '../api/snapshots.ts';
import { Empty, Failure, Loading } from '../components/notes.tsx';
import { PageHead } from '../components/page-head.tsx';
import { SnapshotList } from '../components/snapshot-list.tsx';

export function SnapshotsPage() {
  const snapshots = useSnapshots();
  return (
    <>
      <PageHead title="Snapshots" />
      {snapshots.isPending && <Loading />}
      {snapshots.isError && <Failure error={snapshots.error} />}
      {snapshots.data?.length === 0 && (
        <Empty title="No snapshot yet">
          <p>Take one of a sandbox: any number of sandboxes can begin where it was.</p>
        </Empty>
      )}
      {snapshots.data !== undefined && snapshots.data.length > 0 && <SnapshotList snapshots={snapshots.data} />}
    </>
  );
}
