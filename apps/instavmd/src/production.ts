/** Production mode: what it takes for a daemon to start in it. It refuses whatever is weaker than Firecracker in its jail, under KVM, on a host that is fit for it. */
import type { FirecrackerVerdict } from '@instavm/vmm/choice';
import { type HostFiles, productionObstacles } from '@instavm/vmm/production';
import { InstaVMError } from '@instavm/wire';
import type { Config } from './config.ts';

type Refusal = { readonly why: string; readonly remedy: string };

/**
 * @param judge whether Firecracker can be used; not asked where the settings rule it out
 * @throws production_refused, with every reason at once
 */
export async function checkProduction(
  config: Pick<Config, 'INSTAVM_VMM' | 'INSTAVM_ACCELERATOR'>,
  host: HostFiles,
  judge: () => Promise<FirecrackerVerdict>,
): Promise<void> {
  const ofSettings = refusalsOfSettings(config);
  const refusals = [...ofSettings];
  for (const { name, found, fix } of await productionObstacles(host))
    refusals.push({ why: `${name}: ${found}`, remedy: fix ?? '' });
  const verdict = ofSettings.length > 0 ? undefined : await judge();
  if (verdict?.usable === false)
    refusals.push({ why: `Firecracker cannot be used here: ${verdict.why}`, remedy: verdict.remedy });
  if (refusals.length === 0) return;
  const lines = refusals.map(({ why, remedy }) => `\n  ${why}\n    → ${remedy}`);
  throw new InstaVMError('production_refused', `production mode does not start here:${lines.join('')}`, {
    hint: 'npm run doctor shows everything that a production host should have. INSTAVM_PRODUCTION=off starts without.',
    details: { refusals },
  });
}

function refusalsOfSettings(config: Pick<Config, 'INSTAVM_VMM' | 'INSTAVM_ACCELERATOR'>): Refusal[] {
  const { INSTAVM_VMM: vmm, INSTAVM_ACCELERATOR: accelerator } = config;
  const refusals: Refusal[] = [];
  if (vmm === 'qemu' || vmm === 'fake') {
    const why = vmm === 'fake' ? 'it runs no guest and isolates nothing' : 'its jail is not Firecracker’s';
    refusals.push({ why: `INSTAVM_VMM is ${vmm}: ${why}`, remedy: 'Leave INSTAVM_VMM out, or set it to firecracker.' });
  }
  if (accelerator === 'tcg') {
    const why = 'INSTAVM_ACCELERATOR is tcg: emulated guests have no boundary';
    refusals.push({ why, remedy: 'Leave INSTAVM_ACCELERATOR out.' });
  }
  return refusals;
}
