/** `allowed_domains` and the registries, compiled: exact names and wildcards, each for every port or for one. */
import { parseAddress } from './addresses.ts';
import { parseCidrRule } from './cidrs.ts';
import { normalizeName, parsePort } from './names.ts';

export type DomainRule = {
  /** Normal form: lower case, A-labels, port when it was given. */
  readonly text: string;
  /** Without `*.` */
  readonly name: string;
  /** Every name below `name`, at any depth, and not `name` itself. */
  readonly below: boolean;
  readonly port: number | undefined;
};

export type ParsedDomainRule = { readonly rule: DomainRule } | { readonly problem: string };

/** `example.com`, `*.example.com`, each with an optional `:port`. */
export function parseDomainRule(input: string): ParsedDomainRule {
  const entry = input.trim();
  if (entry === '') return { problem: 'is empty; give a host name' };
  // An address with a port, too: the rule would otherwise look like a name.
  const host = /^\[(.*)\](?::\d+)?$/.exec(entry)?.[1] ?? /^([0-9.]+):\d+$/.exec(entry)?.[1] ?? entry;
  if (parseAddress(host) || parseCidrRule(entry)) return { problem: 'is an address; use allowed_cidrs' };
  if (entry.includes('/')) return { problem: 'has a scheme or path; give only the host name' };
  if (entry.startsWith('.')) {
    return {
      problem: `begins with a dot; write *${entry} for every name below it, and the name itself as an entry of its own`,
    };
  }

  const colon = entry.lastIndexOf(':');
  const port = colon < 0 ? undefined : parsePort(entry.slice(colon + 1));
  if (colon >= 0 && port === undefined) return { problem: 'has no valid port behind its colon; ports are 1 to 65535' };
  const pattern = colon < 0 ? entry : entry.slice(0, colon);
  if (pattern === '*')
    return { problem: 'would be every host; use allow_https or allow_http, or a range in allowed_cidrs' };

  const below = pattern.startsWith('*.');
  const rest = below ? pattern.slice(2) : pattern;
  if (rest.includes('*'))
    return { problem: 'has a wildcard inside; * stands only for the labels before a name, as in *.example.com' };
  const name = normalizeName(rest);
  if (name === undefined) return { problem: 'is not a host name' };
  return { rule: { text: `${below ? '*.' : ''}${name}${port === undefined ? '' : `:${port}`}`, name, below, port } };
}

/** Texts of rules: the one for every port, and those for one. */
type PortRules = { any?: string; readonly byPort: Map<number, string> };
type Node = { readonly children: Map<string, Node>; exact?: PortRules; below?: PortRules };

/** A tree of labels, the top-level domain first: a look-up takes one step for each label that rules know. */
export class DomainSet {
  readonly #root: Node = { children: new Map() };

  /** @param defaultPorts what a rule without a port allows; every port when left out */
  constructor(rules: readonly DomainRule[], defaultPorts?: readonly number[]) {
    for (const rule of rules) this.#add(rule, rule.port === undefined ? defaultPorts : [rule.port]);
  }

  #add({ name, below, text }: DomainRule, ports: readonly number[] | undefined): void {
    let node = this.#root;
    for (const label of name.split('.').reverse()) {
      let child = node.children.get(label);
      if (!child) {
        child = { children: new Map() };
        node.children.set(label, child);
      }
      node = child;
    }
    const slot = below ? 'below' : 'exact';
    const rules: PortRules = node[slot] ?? { byPort: new Map() };
    node[slot] = rules;
    if (ports === undefined) rules.any ??= text;
    for (const port of ports ?? []) if (!rules.byPort.has(port)) rules.byPort.set(port, text);
  }

  /**
   * @param name in normal form
   * @returns the text of the rule that allows it; the one nearest to the name when there are several
   */
  match(name: string, port: number): string | undefined {
    return this.#find(name, (rules) => rules.any ?? rules.byPort.get(port));
  }

  /** Whether some rule allows the name on some port. */
  covers(name: string): boolean {
    return this.#find(name, () => true) ?? false;
  }

  #find<T>(name: string, pick: (rules: PortRules) => T | undefined): T | undefined {
    let node = this.#root;
    let found: T | undefined;
    for (let end = name.length; ; ) {
      const dot = name.lastIndexOf('.', end - 1);
      const child = node.children.get(name.slice(dot + 1, end));
      if (!child) return found;
      if (dot < 0) return (child.exact && pick(child.exact)) ?? found;
      found = (child.below && pick(child.below)) ?? found;
      node = child;
      end = dot;
    }
  }
}
