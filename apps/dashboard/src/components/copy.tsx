/** Text to take along, with a button that copies it. */
import { useState } from 'react';
import { Button } from './button.tsx';

export function Copy({ text, label = 'Copy' }: { text: string; label?: string }) {
  const [said, setSaid] = useState('');
  const copy = (): void => {
    // Browsers offer the clipboard to secure pages only.
    if (navigator.clipboard === undefined) setSaid('Select and copy it by hand');
    else
      navigator.clipboard.writeText(text).then(
        () => setSaid('Copied'),
        () => setSaid('Select and copy it by hand'),
      );
    setTimeout(() => setSaid(''), 2_500);
  };
  return (
    <>
      <Button onClick={copy}>{said === '' ? label : said}</Button>
      <span role="status" className="visually-hidden">
        {said}
      </span>
    </>
  );
}

export const Code = ({ text, label }: { text: string; label: string }) => (
  <figure className="code">
    <figcaption>
      {label} <Copy text={text} />
    </figcaption>
    {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard. */}
    <pre tabIndex={0}>{text}</pre>
  </figure>
);
