/** `npm run bench [-- --json]`: measures what SPECIFICATION.md states, as ratios within one run. */
import { runBench } from '../bench/run.ts';
import { setup } from './steps/setup.ts';

await setup({ python: false });
await runBench({ json: process.argv.includes('--json') });
