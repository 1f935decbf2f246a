/** `npm run doctor [-- --json]`: what this host has and lacks. Ends with 1 when something that is needed is missing. */
import { parseArgs } from 'node:util';
import { type Finding, HOST_CHECKS } from './steps/host-checks.ts';

const MARKS = { ok: 'ok  ', warn: 'warn', fail: 'FAIL', 'n/a': 'n/a ' };

/** Of what a check found. */
const INDENT = 24;

type Row = Finding & { readonly name: string };

// A reader that has gone, such as head(1), is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

try {
  const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
  const rows: Row[] = [];
  for (const check of HOST_CHECKS) {
    // A check that cannot tell is a finding too.
    const finding = await check
      .run((message) => console.error(`${check.name}: ${message} …`))
      .catch((error: unknown): Finding => ({ status: 'fail', found: String(error), fix: 'see the message' }));
    const row = { name: check.name, ...finding };
    rows.push(row);
    if (!values.json) print(row);
  }
  const failures = rows.filter((row) => row.status === 'fail').length;
  if (values.json) console.log(JSON.stringify(rows, null, 2));
  else console.log(failures === 0 ? '\nThis host can run InstaVM.' : `\n${failures} requirements are not met.`);
  process.exitCode = failures === 0 ? 0 : 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

function print({ name, status, found, fix }: Row): void {
  console.log(`${MARKS[status]}  ${name.padEnd(17)} ${hanging(found)}`);
  if (fix) console.log(' '.repeat(INDENT) + hanging(`→ ${fix}`));
}

/** In lines that fit the terminal, the further ones below the first; unbroken where there is no terminal. */
function hanging(text: string): string {
  const { columns } = process.stdout;
  if (columns === undefined) return text;
  const room = Math.max(20, columns - INDENT);
  const lines = text.match(new RegExp(`\\S.{0,${room - 1}}(?=\\s|$)|\\S+`, 'g')) ?? [];
  return lines.join(`\n${' '.repeat(INDENT)}`);
}
