/** A look at a file: text as text, images as images, anything else not at all. */
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { send } from '../../api/http.ts';
import { sandboxPath } from '../../api/sandboxes.ts';
import type { FileInfo } from '../../api/types.ts';
import { Button } from '../../components/button.tsx';
import { Dialog } from '../../components/dialog.tsx';
import { Failure, Loading } from '../../components/notes.tsx';
import { bytes } from '../../components/text.tsx';

const MAX_TEXT_BYTES = 512 * 1024;
const MAX_IMAGE_BYTES = 20 * 1024 * 1024;
/** In an `<img>` none of them runs anything. */
const IMAGES: Readonly<Record<string, string>> = {
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
  gif: 'image/gif',
  webp: 'image/webp',
  avif: 'image/avif',
  svg: 'image/svg+xml',
};

type Props = {
  readonly id: string;
  readonly path: string;
  readonly info: FileInfo;
  readonly onDownload: () => void;
  readonly onClose: () => void;
};

export function FilePreview({ id, path, info, onDownload, onClose }: Props) {
  const type = IMAGES[info.name.split('.').at(-1)?.toLowerCase() ?? ''];
  const isImage = type !== undefined && info.size_bytes <= MAX_IMAGE_BYTES;
  const contents = useQuery({
    queryKey: ['file', id, path, info.modified_at],
    queryFn: async () => {
      const query = { path, ...(isImage || info.size_bytes === 0 ? {} : { length: MAX_TEXT_BYTES }) };
      return (await send('GET', sandboxPath(id, '/files'), { query })).arrayBuffer();
    },
  });
  return (
    <Dialog title={info.name} onClose={onClose} isWide>
      <p className="muted break">
        {path}, {bytes(info.size_bytes)}
      </p>
      {contents.isPending && <Loading />}
      {contents.isError && <Failure error={contents.error} />}
      {contents.data &&
        (isImage ? (
          <Image data={contents.data} type={type} name={info.name} />
        ) : (
          <Text data={contents.data} isPart={info.size_bytes > MAX_TEXT_BYTES} />
        ))}
      <div className="actions">
        <Button onClick={onDownload}>Download</Button>
        <Button onClick={onClose}>Close</Button>
      </div>
    </Dialog>
  );
}

function Image({ data, type, name }: { data: ArrayBuffer; type: string; name: string }) {
  const [url, setUrl] = useState<string>();
  const [isBroken, setBroken] = useState(false);
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([data], { type }));
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [data, type]);
  if (isBroken) return <p>It is no image that this browser can show.</p>;
  return url === undefined ? null : <img className="picture" src={url} alt={name} onError={() => setBroken(true)} />;
}

function Text({ data, isPart }: { data: ArrayBuffer; isPart: boolean }) {
  const text = decode(data);
  if (text === undefined) return <p>It is not text. Download it to look at it.</p>;
  return (
    <>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard. */}
      <pre className="contents" tabIndex={0}>
        {text}
      </pre>
      {isPart && <p className="muted">The first {bytes(MAX_TEXT_BYTES)}.</p>}
    </>
  );
}

/** @returns undefined for what is not UTF-8 text; a character cut at the end is left out */
function decode(data: ArrayBuffer): string | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(data, { stream: true });
    return text.includes('\0') ? undefined : text;
  } catch {
    return undefined;
  }
}
