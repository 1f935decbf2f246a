/** A labelled input with its hint. */
import { type ComponentProps, useId } from 'react';

type Props = ComponentProps<'input'> & { readonly label: string; readonly hint?: string };

export function Field({ label, hint, ...input }: Props) {
  const id = useId();
  const hintId = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input id={id} aria-describedby={hint === undefined ? undefined : hintId} {...input} />
      {hint !== undefined && (
        <p id={hintId} className="muted">
          {hint}
        </p>
      )}
    </div>
  );
}
