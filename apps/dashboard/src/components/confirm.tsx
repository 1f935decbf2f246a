/** Asks before something is gone for good. The focus begins on what changes nothing. */
import type { ReactNode } from 'react';
import { Button } from './button.tsx';
import { Dialog } from './dialog.tsx';

type Props = {
  readonly title: string;
  /** On the button, like "Delete". */
  readonly verb: string;
  readonly onConfirm: () => void;
  /** Called after `onConfirm` as well. */
  readonly onClose: () => void;
  /** What it means. */
  readonly children: ReactNode;
};

export function Confirm({ title, verb, onConfirm, onClose, children }: Props) {
  const confirm = () => {
    onConfirm();
    onClose();
  };
  return (
    <Dialog title={title} onClose={onClose}>
      {children}
      <div className="actions">
        <Button onClick={onClose}>Keep it</Button>
        <Button kind="danger" onClick={confirm}>
          {verb} it
        </Button>
      </div>
    </Dialog>
  );
}
