/** The list behind `allow_public_repos`, and the page that shows it. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { PUBLIC_REGISTRIES, parseDomainRule, REGISTRY_GROUPS, SPECIAL_RANGES } from '../src/index.ts';

const PAGE = readFileSync(new URL('../../../docs/reference/egress-policy.md', import.meta.url), 'utf8');

/** Rows of the table under a heading, each as its cells. */
function tableOf(heading: string): string[][] {
  const section = PAGE.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? '';
  const rows = section.split('\n').filter((line) => line.startsWith('| '));
  return rows.slice(1).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

const codesOf = (cell: string | undefined): string[] =>
  Array.from((cell ?? '').matchAll(/`([^`]+)`/g), (match) => match[1] ?? '');

test('every registry is a domain rule in its normal form, and there once', () => {
  for (const entry of PUBLIC_REGISTRIES) expect(parseDomainRule(entry)).toMatchObject({ rule: { text: entry } });
  expect(new Set(PUBLIC_REGISTRIES).size).toBe(PUBLIC_REGISTRIES.length);
});

test('the page lists the registries that the code allows', () => {
  const listed = tableOf('Registries').map(([group, hosts]) => ({ group, domains: codesOf(hosts) }));
  expect(listed).toEqual(REGISTRY_GROUPS);
});

test('the page names every range of special addresses', () => {
  const listed = tableOf('Special addresses').flatMap(([ids]) => codesOf(ids));
  expect(listed.toSorted()).toEqual(SPECIAL_RANGES.map((range) => `special_address:${range}`).toSorted());
});
