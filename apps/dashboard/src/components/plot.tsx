/** Lines over time, with the newest value in words and each value under the pointer or the arrow keys. */
import { type KeyboardEvent, type PointerEvent, useState } from 'react';
import { Axes } from './axes.tsx';

export type Line = { readonly name: string; readonly values: readonly number[] };

type Props = {
  readonly title: string;
  /** As many values each as there are instants. */
  readonly lines: readonly Line[];
  readonly at: readonly Date[];
  /** Of the upper edge; when left out, a power of two above every value. */
  readonly most?: number;
  readonly newest: string;
  readonly show: (value: number) => string;
};

const WIDTH = 300;
const HEIGHT = 80;
/** A drawing of next to nothing must not look like one of much. */
const LEAST_EDGE = 1024;

const edgeAbove = (values: readonly number[]): number => 2 ** Math.ceil(Math.log2(Math.max(LEAST_EDGE, ...values)));

export function Plot({ title, lines, at, most, newest, show }: Props) {
  const [picked, setPicked] = useState<number>();
  const top = most ?? edgeAbove(lines.flatMap(({ values }) => values));
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
  const time = (instant: Date | undefined): string | undefined =>
    instant?.toLocaleTimeString([], { timeStyle: 'short' });
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
      {lines.length > 1 && (
        <p className="legend muted">
          {lines.map(({ name }, index) => (
            <span key={name}>
              <svg className="swatch" viewBox="0 0 24 4" aria-hidden="true">
                <polyline className={classOf(index)} points="0,2 24,2" />
              </svg>
              {name}
            </span>
          ))}
        </p>
      )}
      <Axes scale={[show(top), show(top / 2), show(0)]} from={time(at[0])} to={time(at.at(-1))}>
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
          <line className="grid" x1={0} x2={WIDTH} y1={HEIGHT / 2} y2={HEIGHT / 2} />
          {lines.map(({ name, values }, index) => (
            <polyline
              key={name}
              className={classOf(index)}
              points={values.map((value, place) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`).join(' ')}
            />
          ))}
          {picked !== undefined && <line x1={x(picked)} x2={x(picked)} y1={0} y2={HEIGHT} />}
        </svg>
      </Axes>
    </figure>
  );
}

const classOf = (index: number): string => (index === 0 ? 'first' : 'second');
