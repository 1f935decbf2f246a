/** What could stand where the cursor is: commands, options, their values, and what the server knows by name. */
import type { Argument, Command, Option } from 'commander';

export type Candidate = readonly [value: string, description: string];

export type Candidates = {
  readonly values: readonly Candidate[];
  /** Where files of this machine could stand, the shell completes them. */
  readonly files: boolean;
};

/** Asked for only when it is needed. @param kind the name of an argument or of an option's value; @param before the arguments so far */
export type Known = (kind: string, before: readonly string[]) => Promise<readonly Candidate[]>;

const NOTHING: Candidates = { values: [], files: false };

/** @param words after the program's name, the last one the one that is being typed */
export async function candidates(program: Command, words: readonly string[], known: Known): Promise<Candidates> {
  const typed = words.at(-1) ?? '';
  let command = program;
  let operands: string[] = [];
  let wantsValue: Option | undefined;
  for (const word of words.slice(0, -1)) {
    if (wantsValue !== undefined) {
      wantsValue = undefined;
      continue;
    }
    // What follows is the business of a program in the sandbox.
    if (word === '--') return NOTHING;
    if (word.startsWith('-') && word !== '-') {
      const option = optionOf(command, word);
      if (option !== undefined && takesValue(option) && !word.includes('=')) wantsValue = option;
      continue;
    }
    const child = operands.length === 0 ? command.commands.find((one) => one.name() === word) : undefined;
    operands = child === undefined ? [...operands, word] : [];
    command = child ?? command;
  }
  if (wantsValue !== undefined) return valuesOf(wantsValue, operands, typed, known);
  if (typed.startsWith('-') && typed !== '-') {
    const [name = '', value] = typed.split('=', 2);
    const option = value === undefined ? undefined : optionOf(command, name);
    if (option !== undefined && takesValue(option)) {
      const { values, files } = await valuesOf(option, operands, value ?? '', known);
      return { values: values.map(([one, text]) => [`${name}=${one}`, text]), files };
    }
    return matching(optionsOf(command).map(described), typed);
  }
  const commands =
    operands.length === 0
      ? command.commands
          .filter((one) => one.name() !== 'complete')
          .map((one): Candidate => [one.name(), one.summary() || one.description()])
      : [];
  const argument = argumentAt(command, operands.length);
  if (argument === undefined) return matching(commands, typed);
  const own = await argumentValues(argument, operands, known);
  const { values } = matching([...commands, ...own.values], typed);
  return { values, files: own.files };
}

const takesValue = (option: Option): boolean => option.required || option.optional;

const optionsOf = (command: Command): Option[] => command.createHelp().visibleOptions(command);

const optionOf = (command: Command, word: string): Option | undefined =>
  optionsOf(command).find(({ long, short }) => long === word.split('=', 1)[0] || short === word);

const described = ({ long, short, description }: Option): Candidate => [long ?? short ?? '', description];

function argumentAt({ registeredArguments }: Command, index: number): Argument | undefined {
  const last = registeredArguments.at(-1);
  return registeredArguments[index] ?? (last?.variadic ? last : undefined);
}

const PATHS = new Set(['place']);

async function valuesOf(option: Option, before: readonly string[], typed: string, known: Known): Promise<Candidates> {
  const kind = /<([\w-]+)/.exec(option.flags)?.[1] ?? '';
  const choices = option.argChoices?.map((choice): Candidate => [choice, '']);
  return { ...matching(choices ?? (await known(kind, before)), typed), files: false };
}

async function argumentValues(argument: Argument, before: readonly string[], known: Known): Promise<Candidates> {
  const choices = argument.argChoices?.map((choice): Candidate => [choice, '']);
  return { values: choices ?? (await known(argument.name(), before)), files: PATHS.has(argument.name()) };
}

const matching = (all: readonly Candidate[], typed: string): Candidates => ({
  values: all.filter(([value]) => value.startsWith(typed)),
  files: false,
});
