/**
 * `npm run bench [-- --json]`: measures what SPECIFICATION.md states, as ratios within one run.
 * With `--vmm firecracker [--quick]`: the same for Firecracker under its jailer, as root on a KVM host, against the targets in milliseconds; `--quick`
 * only shows that it runs to its end. With `--nested`: a restore under Firecracker in a machine that stands for a KVM host.
 */
import { parseArgs } from 'node:util';
import { runFirecrackerBench } from '../bench/firecracker.ts';
import { runNestedBench } from '../bench/nested/run.ts';
import { runBench } from '../bench/run.ts';
import { setup } from './steps/setup.ts';

try {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      nested: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      vmm: { type: 'string', default: 'qemu' },
    },
  });
  const { json, nested, quick, vmm } = values;
  if (vmm !== 'qemu' && vmm !== 'firecracker') throw new Error(`--vmm is qemu or firecracker, not ${vmm}`);
  if (quick && vmm === 'qemu') throw new Error('--quick is for --vmm firecracker');
  await setup({ python: false });
  if (nested) await runNestedBench({ json });
  else await (vmm === 'qemu' ? runBench({ json }) : runFirecrackerBench({ json, quick }));
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
