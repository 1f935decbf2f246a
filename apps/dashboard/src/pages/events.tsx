/** What was done in the account. */
import { EventList } from '../components/event-list.tsx';

export function EventsPage() {
  return (
    <>
      <div className="heading">
        <h1>Events</h1>
      </div>
      <EventList />
    </>
  );
}
