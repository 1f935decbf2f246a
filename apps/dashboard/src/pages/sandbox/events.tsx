/** What was done to and by the sandbox. */
import { EventList } from '../../components/event-list.tsx';
import type { ViewProps } from './index.tsx';

export function EventsView({ sandbox }: ViewProps) {
  return (
    <section aria-label="Events">
      <EventList sessionId={sandbox.id} />
    </section>
  );
}
