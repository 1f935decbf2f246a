import type { ViewProps } from './index.tsx';
export const EgressView = ({ sandbox }: ViewProps) => <p>{sandbox.id}</p>;
