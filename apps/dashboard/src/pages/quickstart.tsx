/** The announcement's example, with this server's address and, when one was just made, the person's key. */
import { useState } from 'react';
import { Link } from 'wouter';
import { keyJustCreated } from '../api/keys.ts';
import { Code } from '../components/copy.tsx';
import { PageHead } from '../components/page-head.tsx';
import PYTHON from './examples/analyst.py.txt?raw';
import TYPESCRIPT from './examples/analyst.ts.txt?raw';

const LANGUAGES = [
  [
    'TypeScript',
    TYPESCRIPT,
    'analyst.ts',
    'node analyst.ts',
    'Node 22.18 or later, and the packages instavm and @openai/agents',
  ],
  ['Python', PYTHON, 'analyst.py', 'python3 analyst.py', 'Python 3.10 or later, and the package instavm[agents]'],
] as const;

export function QuickstartPage() {
  const [language, setLanguage] = useState<string>('TypeScript');
  const [, source, fileName, command, needs] = LANGUAGES.find(([name]) => name === language) ?? LANGUAGES[0];
  const key = keyJustCreated();
  const environment = [
    `export INSTAVM_BASE_URL=${location.origin}`,
    `export INSTAVM_API_KEY=${key ?? 'YOUR_KEY'}`,
    'export OPENAI_API_KEY=YOUR_KEY_OF_OPENAI',
  ];
  return (
    <div className="steps">
      <PageHead title="Quickstart" />
      <p>An agent looks for outliers in a file that lives in a computer of its own.</p>
      <h2>1. Say where, and who you are</h2>
      {key === undefined && (
        <p>
          <Link href="/keys">Make a key</Link>: it is filled in here as long as this page is open.
        </p>
      )}
      <Code label="Shell" text={environment.join('\n')} />
      <h2>2. Run the agent</h2>
      <fieldset className="choice">
        <legend className="visually-hidden">Language</legend>
        {LANGUAGES.map(([name]) => (
          <label key={name}>
            <input type="radio" name="language" checked={name === language} onChange={() => setLanguage(name)} /> {name}
          </label>
        ))}
      </fieldset>
      <Code label={fileName} text={source} />
      <p>It takes {needs}.</p>
      <Code label="Shell" text={command} />
      <h2>3. Watch it</h2>
      <p>
        Its sandbox appears under <Link href="/sandboxes">Sandboxes</Link>: open a terminal in it, look at its files,
        see what it tries to reach.
      </p>
    </div>
  );
}
