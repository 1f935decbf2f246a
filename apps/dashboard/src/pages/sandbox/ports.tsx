import type { ViewProps } from './index.tsx';
export const PortsView = ({ sandbox }: ViewProps) => <p>{sandbox.id}</p>;
