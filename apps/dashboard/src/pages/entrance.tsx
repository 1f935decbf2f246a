/** The frame of the pages for people who are not signed in yet. */
import type { ReactNode } from 'react';
import { useTitle } from '../components/page-head.tsx';

export function Entrance({ title, children }: { title: string; children: ReactNode }) {
  useTitle(title);
  return (
    <main className="entrance">
      <img src="/dashboard/icon.svg" alt="" width="48" height="48" />
      <h1>{title}</h1>
      {children}
    </main>
  );
}

/** Where to go afterwards: a page of the dashboard, never another address. */
export function safeNext(search: string): string {
  const next = new URLSearchParams(search).get('next') ?? '/';
  // "//host" and "/\host" would be other servers.
  return /^\/(?![/\\])/.test(next) ? next : '/';
}

/** What a link brings along behind "#", which the server never sees. It is taken off the address bar. */
export function takeFragment(name: string): string | undefined {
  const value = new URLSearchParams(location.hash.slice(1)).get(name) ?? undefined;
  if (value !== undefined) history.replaceState(null, '', location.pathname + location.search);
  return value;
}
