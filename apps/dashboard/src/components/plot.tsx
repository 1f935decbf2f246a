/** Lines over time, with the newest value in words and each value under the pointer or the arrow keys. */
import { type KeyboardEvent, type PointerEvent, useState } from 'react';

export type Line = { readonly name: string; readonly values: readonly number[] };

type Props = {
  readonly title: string;
  /** As many values each as there are instants. */
  readonly lines: readonly Line[];
  readonly at: readonly Date[];
  /** Of the upper edge; the largest value when left out. */
  readonly most?: number;
  readonly newest: string;
  readonly show: (value: number) => string;
};

const WIDTH = 300;
const HEIGHT = 80;

export function Plot({ title, lines, at, most, newest, show }: Props) {
  const [picked, setPicked] = useState<number>();
  const top = most ?? Math.max(1, ...lines.flatMap(({ values }) => values));
  const [first = 0, last = 0] = [at[0]?.getTime(), at.at(-1)?.getTime()];
  const x = (index: number): number => (((at[index]?.getTime() ?? first) - first) / Math.max(1, last - first)) * WIDTH;
  const y = (value: number): number => HEIGHT - (Math.min(value, top) / top) * HEIGHT;
  const pick = ({ currentTarget, clientX }: PointerEvent<SVGElement>): void => {
    const { left, width } = currentTarget.getBoundingClientRect();
    const wanted = ((clientX - left) / width) * WIDTH;
    const distances = at.map((_, index) => Math.abs(x(index) - wanted));
    setPicked(distances.indexOf(Math.min(...distances)));
  };
  const step = (event: KeyboardEvent): void => {
    const by = event.key === 'ArrowLeft' ? -1 : event.key === 'ArrowRight' ? 1 : 0;
    if (by === 0 || at.length === 0) return;
    event.preventDefault();
    setPicked(Math.min(at.length - 1, Math.max(0, (picked ?? at.length) + by)));
  };
  const words = (index: number): string =>
    lines.map(({ name, values }) => [name, show(values[index] ?? 0)].filter(Boolean).join(' ')).join(', ');
  const when = picked === undefined ? undefined : at[picked];
  return (
    <figure className="plot">
      <figcaption>
        {title}{' '}
        {when === undefined || picked === undefined ? (
          <strong>{newest}</strong>
        ) : (
          <span>
            <strong>{words(picked)}</strong> <span className="muted">{when.toLocaleTimeString()}</span>
          </span>
        )}
      </figcaption>
      <svg
        viewBox={`0 -2 ${WIDTH} ${HEIGHT + 4}`}
        preserveAspectRatio="none"
        role="img"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the values are read with the arrow keys.
        tabIndex={0}
        aria-label={`${title}: ${newest}`}
        onPointerMove={pick}
        onPointerLeave={() => setPicked(undefined)}
        onKeyDown={step}
        onBlur={() => setPicked(undefined)}
      >
        {lines.map(({ name, values }, index) => (
          <polyline
            key={name}
            className={index === 0 ? 'first' : 'second'}
            points={values.map((value, place) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`).join(' ')}
          />
        ))}
        {picked !== undefined && <line x1={x(picked)} x2={x(picked)} y1={0} y2={HEIGHT} />}
      </svg>
      {at.length > 1 && (
        <p className="span muted">
          <span>{at[0]?.toLocaleTimeString()}</span>
          <span>{at.at(-1)?.toLocaleTimeString()}</span>
        </p>
      )}
    </figure>
  );
}
