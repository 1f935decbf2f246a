/** The heading of a page, under which the browser lists it as well: tabs, history, bookmarks. */
import { type ReactNode, useEffect } from 'react';

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · InstaVM`;
  }, [title]);
}

/** @param view what of it is shown, where a page has several */
export function PageHead({ title, view, children }: { title: string; view?: string; children?: ReactNode }) {
  useTitle(view === undefined ? title : `${title}, ${view}`);
  return (
    <div className="heading">
      <h1>{title}</h1>
      {children}
    </div>
  );
}

/** An address that leads nowhere. */
export const Nowhere = ({ title, children }: { title: string; children: ReactNode }) => (
  <>
    <PageHead title={title} />
    {children}
  </>
);
