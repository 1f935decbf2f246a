import { expect, test } from 'vitest';
import { runCommand } from '../src/command.ts';

test('standard output is the answer, standard error comes line by line', async () => {
  const lines: string[] = [];
  const output = await runCommand('sh', ['-c', 'echo answer; echo one >&2; echo two >&2'], {
    onLine: (line) => lines.push(line),
  });
  expect(output).toBe('answer\n');
  expect(lines).toEqual(['one', 'two']);
});

test('a failure names the command, its status and what it said last', async () => {
  await expect(runCommand('sh', ['-c', 'echo no space >&2; exit 3'])).rejects.toThrow(/exit status 3\n {2}no space/);
});

test('a program that is not installed is named', async () => {
  await expect(runCommand('instavm-no-such-program', [])).rejects.toThrow(
    'instavm-no-such-program could not be started',
  );
});

test('an abort ends the whole pipeline, not only its first process', async () => {
  const stop = new AbortController();
  const running = runCommand('sh', ['-c', 'sleep 600 | cat; true'], { signal: stop.signal });
  setTimeout(() => stop.abort(new Error('stopped by the test')), 100);
  await expect(running).rejects.toThrow('stopped by the test');
});

test('variables of the caller that could change a build do not reach it', async () => {
  process.env.PYTHONDONTWRITEBYTECODE = '1';
  expect(await runCommand('sh', ['-c', 'echo "$PYTHONDONTWRITEBYTECODE"'])).toBe('\n');
});
