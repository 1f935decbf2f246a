import { expect, test } from 'vitest';
import { brokenLinks } from '../steps/doc-links.ts';

test('a relative link that leads nowhere is reported; addresses, anchors and code are not links', () => {
  const text =
    'See [a](a.md#part), [b](../b.md), [gone](gone.md), [web](https://example.com), [here](#here) and `[x](y)`.\n';
  const exists = (path: string): boolean => ['docs/a.md', 'b.md'].includes(path);
  expect(brokenLinks([{ path: 'docs/index.md', text }], exists)).toEqual([
    'docs/index.md: link to "gone.md", which does not exist',
  ]);
});
