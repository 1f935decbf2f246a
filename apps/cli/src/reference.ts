/** Prints docs/reference/cli.md, from the help of the commands themselves; `npm run generate` keeps it. */
import type { Command } from 'commander';
import { EXIT } from './exit-codes.ts';
import { program } from './program.ts';

/** As the text of it would be printed into a pipe. */
function helpOf(command: Command): string {
  let text = '';
  command.configureOutput({
    writeOut: (piece) => {
      text += piece;
    },
    getOutHelpWidth: () => 100,
    getOutHasColors: () => false,
  });
  command.outputHelp();
  return text.trim();
}

function sectionsOf(command: Command, depth: number): string[] {
  const names: string[] = [];
  for (let one: Command | null = command; one !== null; one = one.parent) names.unshift(one.name());
  const section = `${'#'.repeat(depth)} ${names.join(' ')}\n\n\`\`\`text\n${helpOf(command)}\n\`\`\``;
  const below = command.commands.filter((one) => !HIDDEN.has(one.name()));
  return [section, ...below.flatMap((one) => sectionsOf(one, command === program ? 2 : Math.min(depth + 1, 4)))];
}

const HIDDEN = new Set(['complete', 'help']);

const EXIT_CODES = [
  [0, 'done'],
  [EXIT.failed, 'it failed; for `egress test`: denied; for `doctor`: something is missing'],
  [EXIT.usage, 'what was typed, or a value that was given, is not right'],
  [EXIT.notFound, 'there is no such sandbox, snapshot, file, …'],
  [EXIT.refused, 'refused: no key or a wrong one, not allowed to it, beyond a quota or a limit, out of credit'],
  [EXIT.network, 'the server did not answer, or the connection to it was lost'],
  [EXIT.notRun, '`exec`, `shell`, `logs --follow`: this command failed before or beside the program'],
  [EXIT.notAProgram, '`exec`, `shell`: there is no such program in the sandbox'],
  ['128 + n', 'ended by signal n: 130 for Ctrl-C'],
] as const;

console.log(`# Command line

<!-- Generated from the commands' own help by \`npm run generate\`: change it there. -->

\`npx instavm\` in a clone. It finds its key by itself where the daemon runs as the same user, or after \`instavm login\`.

**Output.** Tables fit the terminal: columns of less use are left out on a narrow one, and where even that is not enough each row is shown as lines. Rows of \`events\` and \`egress log\`, which come one at a time, take several lines there, and what is longer than the terminal ends with \`…\`. Nothing is cut in a pipe, and there are no colours in one or with \`NO_COLOR\`.
What is for the next command (an id, a URL, a secret) is alone on standard output; what is for a person is on standard error.

**\`--json\`** prints one object or array on one line, in the shape that the help of the command names; times are ISO 8601. Commands that go on print one object a line. An error is one object on standard error then:
\`{"error": {code, message, hint, retryable, status, requestId}}\`, with the codes of [errors.md](errors.md) and those of the client: \`connection_failed\`, \`connection_lost\`, \`unexpected_answer\`, \`wait_timeout\`, \`login_timeout\`, \`login_refused\`,
\`invalid_configuration\`, \`local_file_not_found\`, \`local_file_error\`.

**Exit codes**

| code | meaning |
|---|---|
${EXIT_CODES.map(([code, meaning]) => `| ${code} | ${meaning} |`).join('\n')}

\`exec\`, \`shell\` and \`logs --follow\` end with the exit code of the program in the sandbox.

${sectionsOf(program, 2).join('\n\n')}`);
