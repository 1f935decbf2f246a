import type { ViewProps } from './index.tsx';
export const MetricsView = ({ sandbox }: ViewProps) => <p>{sandbox.id}</p>;
