/** The screen of one terminal, on xterm.js. */
import '@xterm/xterm/css/xterm.css';
import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
import { useEffect, useRef, useState } from 'react';
import { sentence } from '../../../components/text.tsx';
import { currentTheme } from '../../../components/theme.tsx';
import { allowStylesOfTerminals } from './adopted-styles.ts';
import { type ConnectionState, TerminalConnection } from './connection.ts';

allowStylesOfTerminals();

const THEMES = {
  dark: { background: '#0b0d12', foreground: '#e6e8ee', cursor: '#e6e8ee', selectionBackground: '#3b4768' },
  light: {
    background: '#ffffff',
    foreground: '#1c2130',
    cursor: '#1c2130',
    selectionBackground: '#c7d2fe',
    white: '#6b7280',
    brightWhite: '#374151',
    yellow: '#a16207',
    brightYellow: '#a16207',
    green: '#15803d',
    brightGreen: '#15803d',
    cyan: '#0e7490',
    brightCyan: '#0e7490',
  },
};

type Props = {
  readonly sandboxId: string;
  readonly ptyId: string;
  readonly onTitle: (title: string) => void;
  /** Whatever was connected is not any more. */
  readonly onLost: () => void;
};

export function Screen({ sandboxId, ptyId, onTitle, onLost }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const [state, setState] = useState<ConnectionState>({ kind: 'connecting' });
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const terminal = new Terminal({
      fontFamily: 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace',
      fontSize: 13,
      scrollback: 10_000,
      theme: THEMES[currentTheme()],
      minimumContrastRatio: 4.5,
    });
    const fit = new FitAddon();
    terminal.loadAddon(fit);
    terminal.open(element);
    fit.fit();
    terminal.onTitleChange(onTitle);
    const connection = new TerminalConnection(sandboxId, ptyId, terminal, (next) => {
      setState(next);
      if (next.kind === 'waiting') onLost();
    });
    const resized = new ResizeObserver(() => fit.fit());
    resized.observe(element);
    terminal.focus();
    const themed = new MutationObserver(() => {
      terminal.options.theme = THEMES[currentTheme()];
    });
    themed.observe(document.documentElement, { attributeFilter: ['data-theme'] });
    return () => {
      themed.disconnect();
      resized.disconnect();
      connection.close();
      terminal.dispose();
    };
  }, [sandboxId, ptyId, onTitle, onLost]);
  return (
    <div className="screen">
      <div ref={place} className="xterm-place" />
      <p className={`screen-state ${state.kind}`} role="status">
        {state.kind === 'connecting' && 'Connecting …'}
        {state.kind === 'waiting' && `${sentence(state.reason)} Trying again …`}
        {state.kind === 'gone' && 'The terminal has ended.'}
        {state.kind === 'exited' && `The program has ended (${state.signal ?? state.exitCode}).`}
      </p>
    </div>
  );
}
