/** `npm run setup [-- --python] [-- --tests] [-- --json]`: makes this clone able to run microVMs. */
import { parseArgs } from 'node:util';
import { setup } from './steps/setup.ts';

try {
  const { values } = parseArgs({
    options: {
      python: { type: 'boolean', default: false },
      tests: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  await setup({ ...values, python: values.python || values.tests });
  if (!values.json) console.log('Setup is complete. Next: npm run demo, or npm start.');
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
