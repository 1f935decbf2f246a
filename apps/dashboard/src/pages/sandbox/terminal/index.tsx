/**
 * The terminals of a sandbox as tabs. They live in the sandbox: the list of tabs is what the sandbox says, so another visit, browser
 * or `instavm shell` finds the same ones.
 */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useCallback, useEffect, useState } from 'react';
import { request } from '../../../api/http.ts';
import { verdictOn } from '../../../api/sandboxes.ts';
import type { Pty } from '../../../api/types.ts';
import { Button } from '../../../components/button.tsx';
import { Empty, Failure, Loading } from '../../../components/notes.tsx';
import type { ViewProps } from '../index.tsx';
import { Suspended } from '../suspended.tsx';
import { Screen } from './screen.tsx';

/** A terminal that nobody looks at for so long is ended. */
const LINGER_SECONDS = 86_400;
const MAX_TITLE_LENGTH = 40;

export default function TerminalView({ sandbox }: ViewProps) {
  const { id, state } = sandbox;
  const base = `/v1/sessions/${encodeURIComponent(id)}/pty/sessions`;
  const client = useQueryClient();
  const key = ['ptys', id];
  const isRunning = state === 'running';
  const ptys = useQuery({
    queryKey: key,
    queryFn: async () => (await request<{ sessions: Pty[] }>('GET', base)).sessions,
    enabled: isRunning,
  });
  const [chosen, setChosen] = useState(() => sessionStorage.getItem(`pty ${id}`) ?? '');
  const [titles, setTitles] = useState<Readonly<Record<string, string>>>({});
  const refresh = () => client.invalidateQueries({ queryKey: key });
  const open = useMutation({
    mutationFn: () =>
      request<Pty>('POST', base, {
        json: {
          id: `web-${crypto.randomUUID().slice(0, 8)}`,
          linger_seconds: LINGER_SECONDS,
          env: { TERM: 'xterm-256color', COLORTERM: 'truecolor' },
        },
      }),
    onSuccess: async (pty) => {
      await refresh();
      setChosen(pty.id);
    },
  });
  const close = useMutation({
    mutationFn: (ptyId: string) => request('DELETE', `${base}/${encodeURIComponent(ptyId)}`),
    // At once, so that its screen does not come back to what is ending.
    onMutate: (ptyId) => client.setQueryData<Pty[]>(key, (before) => before?.filter((pty) => pty.id !== ptyId)),
    onSettled: refresh,
  });
  const tabs = ptys.data ?? [];
  const current = tabs.find((pty) => pty.id === chosen) ?? tabs[0];
  const currentId = current?.id;
  useEffect(() => {
    if (currentId === undefined) return;
    sessionStorage.setItem(`pty ${id}`, currentId);
    document.getElementById(`tab-${currentId}`)?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }, [id, currentId]);
  const onTitle = useCallback(
    (title: string) => setTitles((before) => (currentId === undefined ? before : { ...before, [currentId]: title })),
    [currentId],
  );
  // The sandbox itself may be what was lost.
  const onLost = useCallback(() => void client.invalidateQueries({ queryKey: ['sandbox', id] }), [client, id]);

  const verdict = verdictOn('use', state);
  const reason = verdict.isAllowed ? undefined : verdict.reason;
  if (state === 'suspended' || state === 'resuming')
    return <Suspended sandbox={sandbox} what="Its terminals go on where they were when it is resumed." />;
  if (!isRunning) return <Empty title="No terminal now">{reason && <p>{reason}</p>}</Empty>;
  if (ptys.isPending) return <Loading />;
  const another = (
    <Button kind={currentId === undefined ? 'primary' : 'plain'} isBusy={open.isPending} onClick={() => open.mutate()}>
      New terminal
    </Button>
  );
  return (
    <section aria-label="Terminals">
      <div className="tabs" role="tablist" aria-label="Terminals">
        {tabs.map((pty, index) => (
          <span key={pty.id} className={pty.id === currentId ? 'tab current' : 'tab'} role="presentation">
            <button
              type="button"
              role="tab"
              id={`tab-${pty.id}`}
              aria-selected={pty.id === currentId}
              aria-controls="terminal-panel"
              tabIndex={pty.id === currentId ? 0 : -1}
              onClick={() => setChosen(pty.id)}
              onKeyDown={({ key: pressed }) => {
                const step = { ArrowLeft: -1, ArrowRight: 1 }[pressed];
                const next = step && tabs[(index + step + tabs.length) % tabs.length];
                if (next) setChosen(next.id);
                if (next) document.getElementById(`tab-${next.id}`)?.focus();
              }}
            >
              {index + 1} {titleOf(pty, titles[pty.id])}
            </button>
          </span>
        ))}
      </div>
      {currentId !== undefined && (
        <div className="tab-actions">
          {another}
          <Button isBusy={close.isPending} onClick={() => close.mutate(currentId)}>
            End this one
          </Button>
        </div>
      )}
      {open.isError && <Failure error={open.error} />}
      {close.isError && <Failure error={close.error} />}
      {ptys.isError && <Failure error={ptys.error} />}
      <div id="terminal-panel" role="tabpanel" aria-labelledby={currentId && `tab-${currentId}`}>
        {currentId === undefined ? (
          <Empty title="No terminal is open">
            <p>A terminal goes on in the sandbox when you leave, and is here when you come back.</p>
            {another}
          </Empty>
        ) : (
          <Screen key={currentId} sandboxId={id} ptyId={currentId} onTitle={onTitle} onLost={onLost} />
        )}
      </div>
    </section>
  );
}

/** A program sets the title to whatever it likes. */
function titleOf(pty: Pty, title = ''): string {
  const program = pty.argv[0]?.split('/').at(-1) ?? 'terminal';
  return (title === '' ? program : title).slice(0, MAX_TITLE_LENGTH);
}
