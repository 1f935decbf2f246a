/** Completion: the script for a shell, and the hidden command that it asks (the protocol of Cobra, which @bomb.sh/tab's scripts speak). */
import { ShellCompDirective, script } from '@bomb.sh/tab';
import { Argument, Command } from 'commander';
import { candidates } from '../completion/candidates.ts';
import { knownTo } from '../completion/known.ts';
import { clientOf } from '../connect.ts';
import { help } from '../help.ts';

/** The script asks the package bash-completion for the words, and sets constants, so that a second reading would fail. */
const BEFORE_BASH = `if ! declare -F __instavm_complete > /dev/null; then
declare -F _get_comp_words_by_ref > /dev/null || _get_comp_words_by_ref() {
    words=("\${COMP_WORDS[@]}") cword=$COMP_CWORD cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]}
}`;
/** It takes "default" away again where no files are wanted, and would have none without it. */
const AFTER_BASH = 'fi\ncomplete -o default -F __instavm_complete instavm';

export const completionCommand = new Command('completion')
  .summary('completion of commands, options and ids, for your shell')
  .description('Print a script that completes commands, options, and ids of what there is.')
  .addArgument(new Argument('<shell>', 'yours').choices(['bash', 'zsh', 'fish']))
  .addHelpText(
    'after',
    help({
      examples: [
        [
          'completion bash > ~/.local/share/bash-completion/completions/instavm',
          'bash; or in ~/.bashrc: eval "$(instavm completion bash)"',
        ],
        ['completion zsh > ~/.zsh/completions/_instavm', 'zsh, with that directory in fpath'],
        ['completion fish > ~/.config/fish/completions/instavm.fish', 'fish'],
      ],
    }),
  )
  .action((shell: string) => {
    if (shell === 'bash') console.log(BEFORE_BASH);
    script(shell, 'instavm', 'instavm');
    if (shell === 'bash') console.log(AFTER_BASH);
  });

export const completeCommand = new Command('complete')
  .description('what could stand where the cursor is')
  .argument('[words...]')
  .passThroughOptions()
  .allowUnknownOption()
  .action(async (words: string[], _, command: Command) => {
    const typed = words[0] === '--' ? words.slice(1) : words;
    const program = command.parent ?? command;
    // A shell that completes has nowhere to say why a server does not answer, or that there is no key.
    const known = async (kind: string, before: readonly string[]) => {
      try {
        return await knownTo(clientOf(command), kind, before);
      } catch {
        return [];
      }
    };
    const { values, files } = await candidates(program, typed.length > 0 ? typed : [''], known);
    for (const [value, description] of values) console.log(description === '' ? value : `${value}\t${description}`);
    const { ShellCompDirectiveDefault, ShellCompDirectiveNoFileComp, ShellCompDirectiveNoSpace } = ShellCompDirective;
    const openEnded = values.length > 0 && values.every(([value]) => value.endsWith(':/'));
    console.log(
      `:${openEnded ? ShellCompDirectiveNoSpace : files ? ShellCompDirectiveDefault : ShellCompDirectiveNoFileComp}`,
    );
  });
