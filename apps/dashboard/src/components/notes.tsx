/** What stands where something is not there: yet, at all, or because it failed. */
import type { ReactNode } from 'react';
import { ApiError } from '../api/http.ts';
import { sentence } from './text.tsx';

export const Loading = () => (
  <p className="loading" role="status">
    Loading …
  </p>
);

export function Failure({ error }: { error: Error }) {
  return (
    <div className="note failure" role="alert">
      <p>{sentence(error.message)}</p>
      {error instanceof ApiError && error.hint !== '' && <p className="muted">{sentence(error.hint)}</p>}
    </div>
  );
}

export const Empty = ({ title, children }: { title: string; children?: ReactNode }) => (
  <div className="note empty">
    <h2>{title}</h2>
    {children}
  </div>
);
