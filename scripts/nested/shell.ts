/**
 * For people: runs a script in the machine that stands for a KVM host, and leaves its logs in a directory. A signal that ends it ends the
 * machine too.
 *
 *     node --conditions=instavm-source scripts/nested/shell.ts DIRECTORY SECONDS < script.sh
 */
import { text } from 'node:stream/consumers';
import { runNested } from './run.ts';

const [directory = '', seconds = ''] = process.argv.slice(2);
if (directory === '' || !(Number(seconds) > 0)) {
  console.error('usage: scripts/nested/shell.ts DIRECTORY SECONDS < script.sh');
  process.exit(2);
}
const startedAt = performance.now();
const say = (message: string): void =>
  console.error(`[${((performance.now() - startedAt) / 1000).toFixed(1)} s] ${message}`);
const ending = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.once(signal, () => ending.abort(new Error(`ended by ${signal}`)));
try {
  process.exitCode = await runNested({
    script: await text(process.stdin),
    limitMs: Number(seconds) * 1000,
    directory,
    onOutput: (output) => process.stdout.write(output),
    onProgress: say,
    signal: ending.signal,
  });
  say(`ended with ${process.exitCode}`);
} catch (error) {
  if (error !== ending.signal.reason) throw error;
  say(String(error));
  process.exitCode = 1;
}
