/** The files of a sandbox: browse, look at, upload, download. The directory is part of the address. */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useRef, useState } from 'react';
import { useLocation, useSearch } from 'wouter';
import { request, send } from '../../api/http.ts';
import { sandboxPath, verdictOn } from '../../api/sandboxes.ts';
import type { FileInfo } from '../../api/types.ts';
import { Button } from '../../components/button.tsx';
import { Confirm } from '../../components/confirm.tsx';
import { ListHead } from '../../components/list-head.tsx';
import { Empty, Failure, Loading } from '../../components/notes.tsx';
import { Ago, bytes } from '../../components/text.tsx';
import { FilePreview } from './file-preview.tsx';
import type { ViewProps } from './index.tsx';
import { Suspended } from './suspended.tsx';

const HOME = '/workspace';
/** The browser keeps a download in memory until it is whole. */
const MAX_DOWNLOAD_BYTES = 1024 ** 3;
const MAX_ROWS = 1_000;

export function FilesView({ sandbox }: ViewProps) {
  const { id, state } = sandbox;
  const verdict = verdictOn('use', state);
  const path = new URLSearchParams(useSearch()).get('path') ?? HOME;
  if (state === 'suspended' || state === 'resuming')
    return <Suspended sandbox={sandbox} what="Its files are as they were, and can be looked at while it runs." />;
  if (!verdict.isAllowed)
    return (
      <Empty title="No files now">
        <p>{verdict.reason}</p>
      </Empty>
    );
  return <Directory key={path} id={id} path={path} />;
}

function Directory({ id, path }: { id: string; path: string }) {
  const client = useQueryClient();
  const [, go] = useLocation();
  const [shown, setShown] = useState<FileInfo>();
  const [doomed, setDoomed] = useState<FileInfo>();
  const picker = useRef<HTMLInputElement>(null);
  const key = ['files', id, path];
  const listing = useQuery({
    queryKey: key,
    queryFn: async () =>
      (await request<{ entries: FileInfo[] }>('GET', sandboxPath(id, '/files/list'), { query: { path } })).entries,
  });
  /** A link leads to whatever it names. */
  const follow = useMutation({
    mutationFn: async ({ name }: FileInfo) => {
      const target = await request<FileInfo>('GET', sandboxPath(id, '/files/stat'), {
        query: { path: join(path, name) },
      });
      if (target.kind === 'dir') open(join(path, name));
      else setShown({ ...target, name });
    },
  });
  const refresh = () => client.invalidateQueries({ queryKey: key });
  const open = (directory: string): void => go(`/sandboxes/${id}/files?${new URLSearchParams({ path: directory })}`);
  const upload = useMutation({
    mutationFn: async (files: readonly File[]) => {
      for (const file of files)
        await send('PUT', sandboxPath(id, '/files'), { query: { path: join(path, file.name) }, body: file });
    },
    onSettled: refresh,
  });
  const download = useMutation({
    mutationFn: async (entry: FileInfo) => {
      const answer = await send('GET', sandboxPath(id, '/files'), { query: { path: join(path, entry.name) } });
      save(await answer.blob(), entry.name);
    },
  });
  const remove = useMutation({
    mutationFn: (entry: FileInfo) =>
      request('POST', sandboxPath(id, '/files/remove'), {
        json: { path: join(path, entry.name), recursive: entry.kind === 'dir' },
      }),
    onSettled: refresh,
  });
  const entries = [...(listing.data ?? [])].sort(
    (a, b) => Number(b.kind === 'dir') - Number(a.kind === 'dir') || a.name.localeCompare(b.name),
  );
  return (
    <section
      aria-label="Files"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        upload.mutate([...event.dataTransfer.files]);
      }}
    >
      <div className="heading">
        <PathBar path={path} open={open} />
        <input
          ref={picker}
          type="file"
          multiple
          hidden
          aria-label="Files to upload"
          onChange={({ target }) => {
            upload.mutate([...(target.files ?? [])]);
            target.value = '';
          }}
        />
        <Button isBusy={upload.isPending} onClick={() => picker.current?.click()}>
          {upload.isPending ? 'Uploading …' : 'Upload'}
        </Button>
      </div>
      {[listing, follow, upload, download, remove].map(({ error }, index) => {
        // biome-ignore lint/suspicious/noArrayIndexKey: they never change places.
        return error === null ? null : <Failure key={index} error={error} />;
      })}
      {listing.isPending && <Loading />}
      {listing.data?.length === 0 && (
        <Empty title="Nothing is in here">
          <p>Drop files on this page to upload them.</p>
        </Empty>
      )}
      {entries.length > 0 && (
        <table className="list files">
          <ListHead columns={['Name', 'Size', 'Mode', 'Changed']} />
          <tbody>
            {entries.slice(0, MAX_ROWS).map((entry) => (
              <tr key={entry.name_base64 ?? entry.name}>
                <td data-label="Name">
                  <Name
                    entry={entry}
                    onOpen={() => (entry.kind === 'symlink' ? follow.mutate(entry) : open(join(path, entry.name)))}
                    onShow={() => setShown(entry)}
                  />
                </td>
                <td data-label="Size">{entry.kind === 'file' ? bytes(entry.size_bytes) : '–'}</td>
                <td data-label="Mode">
                  <code>{entry.mode}</code>
                </td>
                <td data-label="Changed">
                  <Ago at={entry.modified_at} />
                </td>
                <td className="row-actions">
                  <div className="actions">
                    {entry.kind === 'file' && (
                      <Button
                        label={`Download ${entry.name}`}
                        isBusy={download.isPending}
                        reason={
                          entry.size_bytes > MAX_DOWNLOAD_BYTES
                            ? 'Too large for a browser: use the SDK.'
                            : unnamed(entry)
                        }
                        onClick={() => download.mutate(entry)}
                      >
                        Download
                      </Button>
                    )}
                    <Button
                      kind="danger"
                      label={`Delete ${entry.name}`}
                      reason={unnamed(entry)}
                      onClick={() => setDoomed(entry)}
                    >
                      Delete
                    </Button>
                  </div>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {entries.length > MAX_ROWS && (
        <p className="muted">
          The first {MAX_ROWS} of {entries.length}.
        </p>
      )}
      {shown && (
        <FilePreview
          id={id}
          path={join(path, shown.name)}
          info={shown}
          onDownload={() => {
            download.mutate(shown);
            setShown(undefined);
          }}
          onClose={() => setShown(undefined)}
        />
      )}
      {doomed && (
        <Confirm
          title="Delete it?"
          verb="Delete"
          onConfirm={() => remove.mutate(doomed)}
          onClose={() => setDoomed(undefined)}
        >
          <p className="break">{join(path, doomed.name)}</p>
          {doomed.kind === 'dir' && <p>With everything that is in it.</p>}
        </Confirm>
      )}
    </section>
  );
}

type NameProps = { readonly entry: FileInfo; readonly onOpen: () => void; readonly onShow: () => void };

function Name({ entry, onOpen, onShow }: NameProps) {
  const { name, kind, link_target } = entry;
  if (unnamed(entry) !== undefined || kind === 'other') return <span className="name">{name}</span>;
  const isDirectory = kind === 'dir';
  return (
    <>
      <button type="button" className="name link" onClick={isDirectory || kind === 'symlink' ? onOpen : onShow}>
        <span aria-hidden="true">{isDirectory ? '▸ ' : ''}</span>
        {name}
      </button>
      {link_target !== undefined && <span className="muted"> → {link_target}</span>}
    </>
  );
}

function PathBar({ path, open }: { path: string; open: (path: string) => void }) {
  const parts = path.split('/').filter((part) => part !== '');
  return (
    <nav aria-label="Path" className="path">
      <button type="button" className="link" onClick={() => open('/')}>
        /
      </button>
      {parts.map((part, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a path may have the same name twice.
        <span key={index}>
          <button type="button" className="link" onClick={() => open(`/${parts.slice(0, index + 1).join('/')}`)}>
            {part}
          </button>
          {index < parts.length - 1 && ' / '}
        </span>
      ))}
    </nav>
  );
}

/** The API names files by text. */
const unnamed = ({ name_base64 }: FileInfo): string | undefined =>
  name_base64 === undefined ? undefined : 'Its name is no UTF-8: use a terminal.';

const join = (directory: string, name: string): string => `${directory === '/' ? '' : directory}/${name}`;

/** As an attachment: nothing of a sandbox is ever opened as a page of ours. */
function save(contents: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([contents], { type: 'application/octet-stream' }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
