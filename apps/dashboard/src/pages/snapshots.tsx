export const SnapshotsPage = () => <h1>Snapshots</h1>;
