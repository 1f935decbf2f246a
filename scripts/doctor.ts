/** `npm run doctor [-- --json]`: what this host has and lacks. Ends with 1 when something that is needed is missing. */
import { parseArgs } from 'node:util';
import { type Finding, HOST_CHECKS } from './steps/host-checks.ts';

const MARKS = { ok: 'ok  ', warn: 'warn', fail: 'FAIL', 'n/a': 'n/a ' };

type Row = Finding & { readonly name: string };

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
  console.log(`${MARKS[status]}  ${name.padEnd(17)} ${found}`);
  if (fix) console.log(`      ${''.padEnd(17)} → ${fix}`);
}
