/**
 * Who may import whom. The table is ARCHITECTURE.md's dependency rule as data; `findViolations` is pure and is given the
 * files. Type-only imports count for the table (a type is a dependency too) and not for cycles (they vanish at run time).
 */
import { dirname, join, normalize } from 'node:path';

/** Workspace package → workspace packages that its sources may import. */
export const ALLOWED_IMPORTS: Readonly<Record<string, readonly string[]>> = {
  '@instavm/wire': [],
  '@instavm/agent-client': [],
  '@instavm/core': ['@instavm/wire'],
  '@instavm/vmm': ['@instavm/core', '@instavm/wire', '@instavm/agent-client'],
  '@instavm/images': ['@instavm/core', '@instavm/wire'],
  '@instavm/store': ['@instavm/core', '@instavm/wire'],
  '@instavm/egress': ['@instavm/core', '@instavm/wire', '@instavm/agent-client'],
  '@instavm/preview': ['@instavm/core', '@instavm/wire'],
  instavm: ['@instavm/wire'],
  '@instavm/cli': ['instavm'],
  '@instavm/dashboard': ['@instavm/wire'],
  '@instavm/testing': ['@instavm/core', '@instavm/wire', '@instavm/agent-client'],
  '@instavm/instavmd': [
    '@instavm/wire',
    '@instavm/agent-client',
    '@instavm/core',
    '@instavm/vmm',
    '@instavm/images',
    '@instavm/store',
    '@instavm/egress',
    '@instavm/preview',
  ],
};

/** What these compute, they compute from what they are given: no built-in module except its types. */
const WITHOUT_IO: readonly string[] = ['@instavm/core', '@instavm/wire'];

export type SourceFile = {
  /** Relative to the repository, with `/`. */
  readonly path: string;
  readonly text: string;
  /** Name of the workspace package that it belongs to; undefined for scripts, tests across packages and examples. */
  readonly packageName: string | undefined;
  readonly packageDirectory: string | undefined;
};

type Import = { readonly specifier: string; readonly typeOnly: boolean };

/** @returns one sentence for each violation */
export function findViolations(files: readonly SourceFile[]): string[] {
  return [...files.flatMap(violationsOfFile), ...findCycles(files)];
}

function violationsOfFile(file: SourceFile): string[] {
  const { packageName, packageDirectory } = file;
  if (packageName === undefined || packageDirectory === undefined) return [];
  const allowed = ALLOWED_IMPORTS[packageName];
  if (!allowed) return [`${file.path}: ${packageName} is not in the table of import rules`];

  const isTest = /(\.test\.ts$|\/test\/)/.test(file.path);
  const problems: string[] = [];
  for (const { specifier, typeOnly } of importsOf(file.text)) {
    const target = workspacePackage(specifier);
    if (specifier.startsWith('.')) {
      const resolved = normalize(join(dirname(file.path), specifier));
      if (!resolved.startsWith(`${packageDirectory}/`)) {
        problems.push(`${file.path}: "${specifier}" leaves the package; import it by package name`);
      }
    } else if (target !== undefined && target !== packageName && !allowed.includes(target) && !isTest) {
      problems.push(`${file.path}: ${packageName} may not import ${target}`);
    } else if (specifier.startsWith('node:') && !typeOnly && !isTest && WITHOUT_IO.includes(packageName)) {
      problems.push(`${file.path}: ${packageName} does no I/O, so it may not import ${specifier}`);
    }
  }
  return problems;
}

function workspacePackage(specifier: string): string | undefined {
  return Object.keys(ALLOWED_IMPORTS).find((name) => specifier === name || specifier.startsWith(`${name}/`));
}

/** Finds `import … from`, `export … from`, bare and dynamic imports. */
export function importsOf(text: string): Import[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const statements = /^\s*(import|export)\s+(type\s+)?(?:[\w*{}\s,$]+?\s+from\s+)?['"]([^'"\n]+)['"]/gm;
  const dynamic = /\bimport\(\s*['"]([^'"\n]+)['"]/g;
  return [
    ...Array.from(code.matchAll(statements), (match) => ({
      specifier: match[3] ?? '',
      typeOnly: match[2] !== undefined,
    })),
    ...Array.from(code.matchAll(dynamic), (match) => ({ specifier: match[1] ?? '', typeOnly: false })),
  ];
}

function findCycles(files: readonly SourceFile[]): string[] {
  const paths = new Set(files.map((file) => file.path));
  const edges = new Map(
    files.map((file) => {
      const targets = importsOf(file.text)
        .filter(({ specifier, typeOnly }) => specifier.startsWith('.') && !typeOnly)
        .map(({ specifier }) => normalize(join(dirname(file.path), specifier)))
        .filter((path) => paths.has(path));
      return [file.path, targets] as const;
    }),
  );
  const finished = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const start = trail.indexOf(path);
    if (start >= 0) cycles.push(`import cycle: ${[...trail.slice(start), path].join(' → ')}`);
    if (start >= 0 || finished.has(path)) return;
    for (const target of edges.get(path) ?? []) visit(target, [...trail, path]);
    finished.add(path);
  };
  for (const path of paths) visit(path, []);
  return cycles;
}
