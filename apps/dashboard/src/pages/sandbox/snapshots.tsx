import type { ViewProps } from './index.tsx';
export const SnapshotsView = ({ sandbox }: ViewProps) => <p>{sandbox.id}</p>;
