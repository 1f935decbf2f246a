/** A line over time, with its newest value in words. */

type Props = {
  readonly title: string;
  readonly values: readonly number[];
  /** Of the upper edge. */
  readonly most: number;
  readonly newest: string;
};

const WIDTH = 300;
const HEIGHT = 80;

export function Plot({ title, values, most, newest }: Props) {
  const step = values.length > 1 ? WIDTH / (values.length - 1) : 0;
  const points = values.map(
    (value, index) => `${(index * step).toFixed(1)},${(HEIGHT - (Math.min(value, most) / most) * HEIGHT).toFixed(1)}`,
  );
  return (
    <figure className="plot">
      <figcaption>
        {title} <strong>{newest}</strong>
      </figcaption>
      <svg
        viewBox={`0 -2 ${WIDTH} ${HEIGHT + 4}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`${title}: ${newest}`}
      >
        <polyline points={points.join(' ')} />
      </svg>
    </figure>
  );
}
