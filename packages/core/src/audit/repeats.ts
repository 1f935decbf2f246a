/**
 * Events that a guest or a stranger can cause as often as it likes, bounded: the first of a kind is written at once, those like it
 * within a minute are counted into one more. Of a subject only so many kinds are told apart.
 */
import type { Clock } from '../clock.ts';
import type { LifecycleLog } from '../log.ts';
import type { AuditTrail, NewAuditEvent } from './event.ts';

const WINDOW_MS = 60_000;
/** Hosts of one sandbox, say, in one minute. */
const KINDS_PER_SUBJECT = 20;
/** Of all subjects together; beyond it nothing new is told before a window ends. */
const MOST_SUBJECTS = 10_000;

type Kind = { readonly event: NewAuditEvent; more: number };
type Subject = { readonly kinds: Map<string, Kind>; readonly cancel: () => void };

export type RepeatsPorts = {
  readonly trail: Pick<AuditTrail, 'append'>;
  readonly clock: Clock;
  readonly log: Pick<LifecycleLog, 'warn'>;
};

export class Repeats {
  readonly #ports: RepeatsPorts;
  readonly #subjects = new Map<string, Subject>();
  #writing: Promise<void> = Promise.resolve();

  constructor(ports: RepeatsPorts) {
    this.#ports = ports;
  }

  /**
   * Never throws, never waits.
   * @param subject who causes it
   * @param kind what makes two of them alike
   * @param rest what is written in place of `event` when the subject has shown too many kinds
   * @param times how often it happened
   */
  note(subject: string, kind: string, event: NewAuditEvent, rest: NewAuditEvent = event, times = 1): void {
    const known = this.#subjects.get(subject) ?? this.#begin(subject);
    if (known === undefined) return;
    const { kinds } = known;
    const isRest = !kinds.has(kind) && kinds.size >= KINDS_PER_SUBJECT;
    const present = kinds.get(isRest ? REST : kind);
    if (present !== undefined) {
      present.more += times;
      return;
    }
    const at = this.#ports.clock.now();
    const first = { at, ...(isRest ? rest : event) };
    kinds.set(isRest ? REST : kind, { event: first, more: times - 1 });
    this.#write([first]);
  }

  /** Writes what was only counted so far. */
  async stop(): Promise<void> {
    for (const name of [...this.#subjects.keys()]) this.#end(name);
    await this.#writing;
  }

  #begin(name: string): Subject | undefined {
    if (this.#subjects.size >= MOST_SUBJECTS) return undefined;
    const { clock } = this.#ports;
    const cancel = clock.schedule(new Date(clock.now().getTime() + WINDOW_MS), () => this.#end(name));
    const subject = { kinds: new Map<string, Kind>(), cancel };
    this.#subjects.set(name, subject);
    return subject;
  }

  #end(name: string): void {
    const subject = this.#subjects.get(name);
    if (subject === undefined) return;
    this.#subjects.delete(name);
    subject.cancel();
    const at = this.#ports.clock.now();
    const repeated = [...subject.kinds.values()].filter(({ more }) => more > 0);
    this.#write(repeated.map(({ event, more }) => ({ ...event, at, details: { ...event.details, repeated: more } })));
  }

  #write(events: readonly NewAuditEvent[]): void {
    if (events.length === 0) return;
    const { trail, log } = this.#ports;
    const warn = (err: unknown): void => log.warn({ err }, 'audit events were not written');
    this.#writing = this.#writing.then(() => trail.append(events).catch(warn));
  }
}

const REST = '\0rest';
