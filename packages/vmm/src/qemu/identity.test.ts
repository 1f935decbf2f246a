/** What a daemon makes of processes that it cannot look at. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';
import { fateOf, processToken } from '../host/process-token.ts';
import { isAlive, observed } from './identity.ts';

/** Below it, this process has all descriptors open. */
const NONE_LEFT = 3;

it('a process that nobody can look at for want of a descriptor has not ended', async () => {
  const identity = await observed(process.pid);
  if (identity === undefined) throw new Error('this process runs');
  const token = processToken();
  const limit = (soft: string): string => `prlimit --pid ${process.pid} --nofile=${soft}:`;
  // Started before, for nothing can be then.
  const script = `before=$(prlimit --pid ${process.pid} --nofile --noheadings --output SOFT | tr -d ' ')
    ${limit(`${NONE_LEFT}`)}; echo low; read -r _; ${limit('$before')}; echo restored`;
  const shell = spawn('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(shell.stdout, 'data');
  const seen = await isAlive(identity).then(
    (alive) => (alive ? 'runs' : 'ended'),
    (error: NodeJS.ErrnoException) => error.code,
  );
  const fate = fateOf(token);
  shell.stdin.write('\n');
  await once(shell, 'close');
  expect([seen, fate]).toEqual(['EMFILE', 'unknown']);
  expect([await isAlive(identity), fateOf(token)]).toEqual([true, 'runs']);
});
