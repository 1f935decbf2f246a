/** What was done in the account. */
import { EventList } from '../components/event-list.tsx';
import { PageHead } from '../components/page-head.tsx';

export function EventsPage() {
  return (
    <>
      <PageHead title="Events" />
      <EventList />
    </>
  );
}
