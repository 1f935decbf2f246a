/** Which page is shown for which address, and to whom. */
import { lazy, type ReactNode, Suspense } from 'react';
import { Link, Redirect, Route, Router, Switch, useLocation, useSearch } from 'wouter';
import { useSession } from './api/session.ts';
import { Failure, Loading } from './components/notes.tsx';
import { Nowhere } from './components/page-head.tsx';
import { Shell } from './components/shell.tsx';
import { AccountPage } from './pages/account.tsx';
import { CliLoginPage } from './pages/cli-login.tsx';
import { EventsPage } from './pages/events.tsx';
import { KeysPage } from './pages/keys.tsx';
import { QuickstartPage } from './pages/quickstart.tsx';
import { SandboxesPage } from './pages/sandboxes.tsx';
import { SignInPage } from './pages/sign-in.tsx';
import { SignUpPage } from './pages/sign-up.tsx';
import { SnapshotsPage } from './pages/snapshots.tsx';
import { UsagePage } from './pages/usage.tsx';

const SandboxPage = lazy(() => import('./pages/sandbox/index.tsx'));

export function App() {
  return (
    <Router base="/dashboard">
      <Switch>
        <Route path="/sign-in" component={SignInPage} />
        <Route path="/sign-up" component={SignUpPage} />
        <Route path="/cli-login">
          <SignedIn>
            <CliLoginPage />
          </SignedIn>
        </Route>
        <Route>
          <SignedIn>
            <Shell>
              <Suspense fallback={<Loading />}>
                <Switch>
                  <Route path="/">
                    <Redirect to="/sandboxes" replace />
                  </Route>
                  <Route path="/sandboxes" component={SandboxesPage} />
                  <Route path="/sandboxes/:id/:view?">
                    {({ id, view }) => <SandboxPage key={id} id={id} view={view ?? 'terminal'} />}
                  </Route>
                  <Route path="/snapshots" component={SnapshotsPage} />
                  <Route path="/events" component={EventsPage} />
                  <Route path="/keys" component={KeysPage} />
                  <Route path="/usage" component={UsagePage} />
                  <Route path="/quickstart" component={QuickstartPage} />
                  <Route path="/account" component={AccountPage} />
                  <Route>
                    <Nowhere title="There is no such page">
                      <p>
                        Was the address copied whole? Go on from <Link href="/sandboxes">your sandboxes</Link>.
                      </p>
                    </Nowhere>
                  </Route>
                </Switch>
              </Suspense>
            </Shell>
          </SignedIn>
        </Route>
      </Switch>
    </Router>
  );
}

function SignedIn({ children }: { children: ReactNode }) {
  const session = useSession();
  const [path] = useLocation();
  const search = useSearch();
  if (session.isPending) return <Loading />;
  if (session.isError) return <Failure error={session.error} />;
  if (session.data.account === null) {
    const next = path + (search && `?${search}`);
    return <Redirect to={`/sign-in?${new URLSearchParams({ next })}`} replace />;
  }
  return children;
}
