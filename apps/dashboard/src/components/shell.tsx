/** What surrounds every page of someone who is signed in. */
import type { ReactNode } from 'react';
import { Link, useLocation } from 'wouter';
import { useEntrance, useSession } from '../api/session.ts';
import { Button } from './button.tsx';
import { CreditNotice } from './credit-notice.tsx';
import { ThemeSwitch } from './theme.tsx';

const PLACES = [
  ['/sandboxes', 'Sandboxes'],
  ['/snapshots', 'Snapshots'],
  ['/events', 'Events'],
  ['/keys', 'API keys'],
  ['/usage', 'Usage'],
  ['/quickstart', 'Quickstart'],
] as const;

export function Shell({ children }: { children: ReactNode }) {
  const { account } = useSession().data ?? {};
  const { leave } = useEntrance();
  const [path] = useLocation();
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <header className="top">
        <Link href="/sandboxes" className="brand">
          <img src="/dashboard/icon.svg" alt="" width="24" height="24" /> InstaVM
        </Link>
        <nav aria-label="Main">
          {PLACES.map(([href, name]) => (
            <Link key={href} href={href} className="place" aria-current={path.startsWith(href) ? 'page' : undefined}>
              {name}
            </Link>
          ))}
        </nav>
        <div className="who">
          <ThemeSwitch />
          <Link href="/account" className="email" title={account?.email}>
            {account?.name}
          </Link>
          <Button onClick={() => void leave()}>Sign out</Button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <CreditNotice />
        {children}
      </main>
    </>
  );
}
