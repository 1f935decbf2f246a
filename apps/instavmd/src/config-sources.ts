/**
 * Where settings come from: the environment (`INSTAVM_LISTEN=…`), a file in YAML (`listen: …`), and, for secrets, a file that a setting
 * names (`INSTAVM_…_FILE`, `…_file:`). The environment wins over the file. What a value means is `config.ts`'s business.
 */
import { readFileSync } from 'node:fs';
import leven from 'leven';
import { isScalar, isSeq, LineCounter, parseDocument, type YAMLMap } from 'yaml';

export type Environment = Readonly<Record<string, string | undefined>>;

/** A value as it was written, and where: `INSTAVM_LISTEN`, or `instavmd.yaml:3: listen`. */
export type Given = { readonly text: string; readonly origin: string; readonly source: 'environment' | 'file' };

export type Sources = {
  readonly given: ReadonlyMap<string, Given>;
  /** Sentences that each say where. */
  readonly problems: readonly string[];
};

export type Known = {
  readonly names: readonly string[];
  /** Which may be given by the name of a file that holds them. */
  readonly secrets: readonly string[];
};

export const PREFIX = 'INSTAVM_';
const FILE_SUFFIX = '_FILE';
/** Settings of our clients and tools, which may stand in the same environment. */
const FOREIGN = /^INSTAVM_(API_KEY|BASE_URL|SSH_HOST|COOKBOOKS_\w+|TEST_\w+|TAPES_\w+|API_BASE|DEMO_\w+)$/;
/** The file that holds the others; only the environment and the command line can name it. */
export const CONFIG_FILE = 'INSTAVM_CONFIG';
/** Fewer changes than this make one name of another by a slip. */
const SLIPS = 4;

export const inFile = (name: string): string => name.slice(PREFIX.length).toLowerCase();
const inEnvironment = (key: string): string => `${PREFIX}${key.toUpperCase()}`;

/** @param path of the file; undefined: INSTAVM_CONFIG says, or there is none */
export function gather(env: Environment, known: Known, path = env[CONFIG_FILE]): Sources {
  const problems: string[] = [];
  const file = path === undefined ? new Map<string, Given>() : readSettings(path, problems);
  const environment = Object.entries(env).flatMap(([name, text]): [string, Given][] =>
    name.startsWith(PREFIX) && !FOREIGN.test(name) && text !== undefined
      ? [[name, { text, origin: name, source: 'environment' }]]
      : [],
  );
  const given = new Map<string, Given>();
  for (const source of [file, new Map(environment)]) {
    for (const [name, value] of resolved(source, known, problems)) given.set(name, value);
  }
  return { given, problems };
}

/** Names that are known, with secrets read from where they are. */
function resolved(
  source: ReadonlyMap<string, Given>,
  { names, secrets }: Known,
  problems: string[],
): Map<string, Given> {
  const found = new Map<string, Given>();
  for (const [name, given] of source) {
    const secret = name.endsWith(FILE_SUFFIX) ? name.slice(0, -FILE_SUFFIX.length) : undefined;
    if (names.includes(name)) found.set(name, given);
    else if (secret === undefined || !secrets.includes(secret)) problems.push(unknown(name, given, names));
    else if (source.has(secret)) problems.push(`${given.origin}: is given, and ${source.get(secret)?.origin} too`);
    else {
      const text = readText(given.text, given.origin, problems);
      if (text !== undefined) found.set(secret, { ...given, text: text.trim() });
    }
  }
  return found;
}

function unknown(name: string, { origin, source }: Given, names: readonly string[]): string {
  const [nearest, slips] = names
    .map((each): [string, number] => [each, leven(each, name)])
    .reduce((best, each) => (each[1] < best[1] ? each : best));
  const hint = slips < SLIPS ? `; did you mean ${source === 'file' ? inFile(nearest) : nearest}?` : '';
  return `${origin}: no such setting${hint}`;
}

function readText(path: string, origin: string, problems: string[]): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    problems.push(`${origin}: cannot read ${path} (${(error as NodeJS.ErrnoException).code})`);
    return undefined;
  }
}

/** One mapping of names to words, numbers, truth values or lists of them. */
function readSettings(path: string, problems: string[]): Map<string, Given> {
  const settings = new Map<string, Given>();
  const text = readText(path, CONFIG_FILE, problems);
  if (text === undefined) return settings;
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): string => `${path}:${lines.linePos(offset).line}`;
  for (const { pos, message } of document.errors) problems.push(`${at(pos[0])}: ${message}`);
  if (document.errors.length > 0 || document.contents === null) return settings;
  const { items } = document.contents as Partial<YAMLMap>;
  if (items === undefined || isSeq(document.contents)) {
    problems.push(`${path}:1: is no list of "name: value"`);
    return settings;
  }
  for (const { key, value } of items) {
    const name = isScalar(key) ? String(key.value) : '';
    const origin = `${at((isScalar(key) && key.range?.[0]) || 0)}: ${name}`;
    const text = textOf(value);
    const setting = name === name.toLowerCase() ? inEnvironment(name) : name;
    if (setting === CONFIG_FILE) problems.push(`${origin}: a file names no other`);
    else if (text === undefined) problems.push(`${origin}: must be one value, or a list of values`);
    else if (settings.has(setting)) problems.push(`${origin}: is given, and ${settings.get(setting)?.origin} too`);
    else settings.set(setting, { text, origin, source: 'file' });
  }
  return settings;
}

/** As the environment would say it. */
function textOf(node: unknown): string | undefined {
  if (isSeq(node)) {
    const items = node.items.map(textOf);
    return items.every((item) => item !== undefined) ? items.join(',') : undefined;
  }
  if (!isScalar(node) || node.value === null || typeof node.value === 'object') return undefined;
  // As it was written: 007 is no 7 where a word is wanted.
  return typeof node.value === 'string' ? node.value : (node.source ?? String(node.value));
}
