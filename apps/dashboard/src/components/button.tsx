/** Buttons. One that cannot be used now says why: it stays reachable by keyboard, its reason is its description, and pressing it shows that. */
import { type MouseEvent, type ReactNode, useId, useState } from 'react';

type Props = {
  readonly children: ReactNode;
  readonly onClick?: ((event: MouseEvent) => void) | undefined;
  readonly kind?: 'primary' | 'danger' | 'plain';
  readonly type?: 'button' | 'submit';
  /** Why it cannot be used now. */
  readonly reason?: string | undefined;
  readonly isBusy?: boolean;
  readonly label?: string;
};

export function Button({ children, onClick, kind = 'plain', type = 'button', reason, isBusy = false, label }: Props) {
  const reasonId = useId();
  const [isAsked, setAsked] = useState(false);
  const isOff = reason !== undefined || isBusy;
  return (
    <span className="button-place">
      <button
        className={`button ${kind}`}
        type={type}
        aria-disabled={isOff}
        aria-label={label}
        aria-describedby={reason === undefined ? undefined : reasonId}
        title={reason}
        onClick={(event) => {
          setAsked(reason !== undefined);
          if (isOff) event.preventDefault();
          else onClick?.(event);
        }}
      >
        {children}
      </button>
      {reason !== undefined && (
        <span id={reasonId} className={isAsked ? 'reason' : 'visually-hidden'}>
          {reason}
        </span>
      )}
    </span>
  );
}
