/**
 * `npm run bench [-- --json] [--nested]`: measures what SPECIFICATION.md states, as ratios within one run. `--nested` measures the Firecracker
 * backend instead, in a machine that stands for a KVM host.
 */
import { runNestedBench } from '../bench/nested/run.ts';
import { runBench } from '../bench/run.ts';
import { setup } from './steps/setup.ts';

await setup({ python: false });
const options = { json: process.argv.includes('--json') };
await (process.argv.includes('--nested') ? runNestedBench(options) : runBench(options));
