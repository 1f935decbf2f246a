/** Audit events, live, with filters and everything that is known of each. */
import { Fragment, useId, useState } from 'react';
import { Link } from 'wouter';
import { type EventFilter, useEventGroups, useEvents } from '../api/events.ts';
import type { AuditEvent } from '../api/types.ts';
import { Button } from './button.tsx';
import { Code } from './copy.tsx';
import { Dialog } from './dialog.tsx';
import { ListHead } from './list-head.tsx';
import { Failure, Loading } from './notes.tsx';
import { Ago, shortId } from './text.tsx';

const STATUSES = ['success', 'failure', 'error', 'denied'] as const;

/** @param sessionId only what is about this sandbox */
export function EventList({ sessionId }: { sessionId?: string }) {
  const groups = useEventGroups();
  const [group, setGroup] = useState('');
  const [status, setStatus] = useState('');
  const filter = { event_group: group || undefined, status: status || undefined, session_id: sessionId };
  return (
    <>
      <div className="filters">
        <Choice label="About" all="everything" values={groups.data ?? []} value={group} onChange={setGroup} />
        <Choice label="Outcome" all="any" values={STATUSES} value={status} onChange={setStatus} />
      </div>
      <Rows key={`${group} ${status}`} filter={filter} />
    </>
  );
}

type ChoiceProps = {
  readonly label: string;
  readonly all: string;
  readonly values: readonly string[];
  readonly value: string;
  readonly onChange: (value: string) => void;
};

function Choice({ label, all, values, value, onChange }: ChoiceProps) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} value={value} onChange={({ target }) => onChange(target.value)}>
        <option value="">{all}</option>
        {values.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </div>
  );
}

function Rows({ filter }: { filter: EventFilter }) {
  const { events, hasOlder, older, isLive, error } = useEvents(filter);
  const [shown, setShown] = useState<AuditEvent>();
  if (error !== undefined && events === undefined) return <Failure error={error} />;
  if (events === undefined) return <Loading />;
  return (
    <>
      <p role="status">
        <span className={isLive ? 'badge running' : 'badge'}>{isLive ? 'live' : 'connecting'}</span>{' '}
        {events.length === 0 && <span className="muted">Nothing like this was done yet.</span>}
      </p>
      {events.length > 0 && (
        <table className="list">
          <ListHead columns={['When', 'Event', 'By', 'What']} />
          <tbody>
            {events.map((event) => (
              <Row key={event.id} event={event} isOfOne={filter.session_id !== undefined} onShow={setShown} />
            ))}
          </tbody>
        </table>
      )}
      {error !== undefined && <Failure error={error} />}
      {hasOlder && <Button onClick={() => void older()}>Show older ones</Button>}
      {shown && <Details event={shown} onClose={() => setShown(undefined)} />}
    </>
  );
}

type RowProps = {
  readonly event: AuditEvent;
  /** The sandbox need not be named. */
  readonly isOfOne: boolean;
  readonly onShow: (event: AuditEvent) => void;
};

function Row({ event, isOfOne, onShow }: RowProps) {
  const { session_id: sessionId } = event;
  return (
    <tr>
      <td data-label="When">
        <Ago at={event.created_at} />
      </td>
      <td data-label="Event">
        <span className="event-type">{event.event_type}</span> <StatusBadge status={event.status} />
      </td>
      <td data-label="By">
        <span className="one-line" title={event.actor_name ?? undefined}>
          {event.actor_name ?? event.actor_type}
        </span>
      </td>
      <td data-label="What">
        {sessionId !== null && !isOfOne && (
          <Link href={`/sandboxes/${sessionId}/events`}>
            <code>{shortId(sessionId)}</code>
          </Link>
        )}{' '}
        <span className="break">{summaryOf(event)}</span>
      </td>
      <td className="row-actions">
        <Button label={`Details of ${event.event_type} ${event.id}`} onClick={() => onShow(event)}>
          Details
        </Button>
      </td>
    </tr>
  );
}

/** What went well needs no mark. */
function StatusBadge({ status }: { status: AuditEvent['status'] }) {
  if (status === 'success') return null;
  return <span className={`badge ${status === 'denied' ? 'denied' : 'failed'}`}>{status}</span>;
}

function Details({ event, onClose }: { event: AuditEvent; onClose: () => void }) {
  const facts = [
    ['When', new Date(event.created_at).toLocaleString()],
    ['Outcome', event.status],
    ['By', [event.actor_type, event.actor_name ?? event.actor_id].filter(Boolean).join(' ')],
    ['From', event.source_ip],
    ['Request', event.request_id],
    ['About', event.resource_type && `${event.resource_type} ${event.resource_id}`],
    ['Sandbox', event.session_id],
    ['MicroVM', event.vm_id],
    ['Why', event.error_message],
  ].filter((fact): fact is [string, string] => Boolean(fact[1]));
  return (
    <Dialog title={event.event_type} onClose={onClose} isWide>
      <dl className="facts-list">
        {facts.map(([name, value]) => (
          <Fragment key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </Fragment>
        ))}
      </dl>
      {Object.keys(event.event_payload).length > 0 && (
        <Code label="More" text={JSON.stringify(event.event_payload, null, 2)} />
      )}
      <Button onClick={onClose}>Close</Button>
    </Dialog>
  );
}

/** The one thing that most wants to be known. */
function summaryOf({ event_payload: payload, error_message: error }: AuditEvent): string {
  const text = (name: string): string | undefined => {
    const value = payload[name];
    return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined;
  };
  const host = text('host') && [text('host'), text('port')].filter(Boolean).join(':');
  const subject = host ?? text('name') ?? text('domain') ?? (text('port') && `port ${text('port')}`);
  const more = text('repeated') && `${text('repeated')} more times`;
  const dollars = text('dollars') && `$${text('dollars')}`;
  return [subject, dollars, more, error ?? text('reason')].filter(Boolean).join(', ') || '–';
}
