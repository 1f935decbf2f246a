/** What stands around a drawing: the scale at its left, and what it spans below. Nothing is stretched with the drawing. */
import type { ReactNode } from 'react';

type Props = {
  /** Of the upper and the lower edge, and what is halfway when there is room for it. */
  readonly scale: readonly [upper: string, middle: string, lower: string];
  readonly from: ReactNode;
  readonly to: ReactNode;
  readonly children: ReactNode;
};

export const Axes = ({ scale, from, to, children }: Props) => (
  <div className="axes">
    <div className="scale" aria-hidden="true">
      {scale.map((text, place) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: an edge is its place.
        <span key={place}>{text}</span>
      ))}
    </div>
    <div className="drawing">{children}</div>
    <p className="span">
      <span>{from}</span>
      <span>{to}</span>
    </p>
  </div>
);
