import type { ViewProps } from './index.tsx';
export const FilesView = ({ sandbox }: ViewProps) => <p>{sandbox.id}</p>;
