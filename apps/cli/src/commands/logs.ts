/** What was written on a terminal of a sandbox, without taking part in it: of commands in the background above all. */
import { once } from 'node:events';
import { Command } from 'commander';
import { InstaVMError, type PtyInfo, type Sandbox } from 'instavm';
import { clientOf, sandboxOf } from '../connect.ts';
import { help } from '../help.ts';
import { printJson } from '../output.ts';

type Options = { follow?: boolean; json?: boolean };

export const logsCommand = new Command('logs')
  .description('what a command in the background, or any terminal, has written; the last 1 MiB of it is kept')
  .argument('<sandbox>', 'id, VM or name')
  .argument('[terminal]', 'as shell ls lists them (default: the newest one)')
  .option('-f, --follow', 'go on until the program ends; its exit code is then that of this command')
  .option('--json', 'one JSON object a line')
  .addHelpText(
    'after',
    help({
      json: 'one a line: { offset, text }, and with --follow { exitCode, signal } at the end',
      examples: [['exec --detach 3f2a make all', 'prints the name of the terminal'], 'logs 3f2a --follow'],
    }),
  )
  .action(async (id: string, name: string | undefined, { follow, json }: Options, command: Command) => {
    const sandbox = await sandboxOf(clientOf(command), id);
    const { id: terminal, startOffset, endOffset } = await terminalOf(sandbox, name);
    const pty = await sandbox.pty.attach(terminal, { offset: startOffset, readOnly: true });
    let offset = startOffset;
    if (follow || offset < endOffset) {
      const decoder = new TextDecoder();
      for await (const chunk of pty.output) {
        const wanted = follow ? chunk : chunk.subarray(0, endOffset - offset);
        const text = decoder.decode(wanted, { stream: true });
        if (json) printJson({ offset, text });
        else await write(text);
        offset += wanted.length;
        if (!follow && offset >= endOffset) break;
      }
    }
    if (!follow) return pty.detach();
    const { exitCode, signal } = await pty.wait();
    if (json) printJson({ exitCode, signal });
    process.exitCode = exitCode;
  });

/** Lines of a terminal end with a carriage return too, which is for terminals only. */
async function write(text: string): Promise<void> {
  const shown = process.stdout.isTTY ? text : text.replaceAll('\r\n', '\n');
  if (!process.stdout.write(shown)) await once(process.stdout, 'drain');
}

/** @throws InstaVMError `pty_not_found` */
async function terminalOf(sandbox: Sandbox, name: string | undefined): Promise<PtyInfo> {
  if (name !== undefined) return sandbox.pty.get(name);
  const newest = (await sandbox.pty.list()).sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime())[0];
  if (newest !== undefined) return newest;
  throw new InstaVMError('pty_not_found', 'nothing was run in the background, and there is no terminal', {
    hint: `Begin with: npx instavm exec --detach ${sandbox.id} <command>`,
  });
}
