/** `npm run generate`: writes every generated file that differs from what its contract gives. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { generateFiles } from './steps/generated-files.ts';
import { ROOT } from './steps/paths.ts';

for (const [path, contents] of await generateFiles()) {
  const target = join(ROOT, path);
  const present = await readFile(target, 'utf8').catch(() => undefined);
  if (present !== contents) {
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, contents);
  }
  console.log(`${present === contents ? 'unchanged' : 'written  '} ${path}`);
}
