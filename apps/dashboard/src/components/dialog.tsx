/** A question in front of the page, on the browser's own dialog: it keeps the focus inside and closes on Escape. */
import { type ReactNode, useId, useLayoutEffect, useRef } from 'react';

type Props = {
  readonly title: string;
  readonly onClose: () => void;
  readonly children: ReactNode;
  readonly isWide?: boolean;
};

export function Dialog({ title, onClose, children, isWide = false }: Props) {
  const element = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  // Before it leaves the document: closing it gives the focus back to where it came from.
  useLayoutEffect(() => {
    const dialog = element.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog ref={element} aria-labelledby={titleId} onCancel={onClose} className={isWide ? 'dialog wide' : 'dialog'}>
      <h2 id={titleId}>{title}</h2>
      {children}
    </dialog>
  );
}
