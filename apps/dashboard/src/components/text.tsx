/** Small pieces of text: states, times, sizes, ids. */
import type { Sandbox, SandboxState } from '../api/types.ts';

export const StateBadge = ({ state }: { state: SandboxState | string }) => (
  <span className={`badge ${state}`}>{state}</span>
);

/** What a server says, in the middle of something or on its own: its first word is a word, not a name of the API. */
export const sentence = (text: string): string =>
  text
    .replace(/^[a-z]+(?=[ ,:]|$)/, (word) => word.charAt(0).toUpperCase() + word.slice(1))
    .replace(/[^.?!:…]$/, '$&.');

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(count: number): string {
  const power = count < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(count) / 10));
  const value = count / 1024 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[power]}`;
}

export function span(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7_200) return `${Math.round(whole / 60)} min`;
  if (whole < 172_800) return `${Math.round(whole / 3_600)} h`;
  return `${Math.round(whole / 86_400)} days`;
}

/** Relative, with the instant itself on demand. */
export function Ago({ at }: { at: string }) {
  const seconds = (Date.now() - Date.parse(at)) / 1000;
  return (
    <time dateTime={at} title={new Date(at).toLocaleString()}>
      {seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`}
    </time>
  );
}

/** What its lease leads to, and when. */
export function Lifetime({ sandbox }: { sandbox: Sandbox }) {
  const { expires_at, auto_suspend, lease_left_seconds: left } = sandbox;
  if (expires_at !== null)
    return (
      <span className="nowrap">
        {auto_suspend ? 'suspends' : 'ends'} <Ago at={expires_at} />
      </span>
    );
  return left === null ? '–' : `${span(left)} left`;
}

export const shortId = (id: string): string => id.slice(0, 8);

const LONGEST_NAME = 60;

/** What the person calls it, when it is called something. */
export function nameOf({ id, metadata: { name } }: Sandbox): string {
  if (typeof name !== 'string' || name === '') return shortId(id);
  return name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME)}…` : name;
}
