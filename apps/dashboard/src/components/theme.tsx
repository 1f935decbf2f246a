/** Light or dark: the system's choice, until the person makes another in this browser. */
import { useState } from 'react';

const STORED_AS = 'instavm.theme';
type Theme = 'light' | 'dark';

/** Before the first paint. */
export function applyStoredTheme(): void {
  const stored = localStorage.getItem(STORED_AS);
  if (stored === 'light' || stored === 'dark') document.documentElement.dataset.theme = stored;
}

export function currentTheme(): Theme {
  const { theme } = document.documentElement.dataset;
  if (theme === 'light' || theme === 'dark') return theme;
  return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
}

export function ThemeSwitch() {
  const [theme, setTheme] = useState(currentTheme);
  const next: Theme = theme === 'dark' ? 'light' : 'dark';
  const change = (): void => {
    localStorage.setItem(STORED_AS, next);
    applyStoredTheme();
    setTheme(next);
  };
  return (
    <button type="button" className="button plain icon" aria-label={`Use the ${next} theme`} onClick={change}>
      <span aria-hidden="true">{next === 'dark' ? '☾' : '☀'}</span>
    </button>
  );
}
