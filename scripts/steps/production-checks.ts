/**
 * Which backend the daemon would take here, what keeps QEMU in where it is that, and whether the host is fit to run strangers' code under
 * Firecracker. The last matters where Firecracker runs the microVMs; elsewhere it is n/a.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { locateGuestImages, MissingGuestImages } from '@instavm/images';
import { type FirecrackerVerdict, judgeFirecracker } from '@instavm/vmm/choice';
import { HostFiles, isAtLeast, PRODUCTION_CHECKS } from '@instavm/vmm/production';
import { type Confinement, probeConfinement } from '@instavm/vmm/qemu';
import type { Finding, HostCheck } from './host-checks.ts';
import type { Progress } from './report.ts';

/** Where the daemon's setting does not say otherwise. */
const TRIAL = { uids: { first: 1_900_000_000, count: 1 }, parentCgroup: 'instavm-doctor', usesKvm: true };
/** From here on there is an open report of a hang after a pause under traffic (firecracker issue 6074). */
const HANGING = [1, 16, 1] as const;

type Location = { readonly cacheDirectory: string; readonly agentPath: string };

export function productionChecks(location: Location): readonly HostCheck[] {
  let verdict: Promise<FirecrackerVerdict> | undefined;
  const judged = (progress: Progress): Promise<FirecrackerVerdict> => {
    verdict ??= judge(location, progress);
    return verdict;
  };
  const host = new HostFiles();
  return [
    { name: 'backend', run: async (progress) => backendFinding(await judged(progress)) },
    { name: "QEMU's jail", run: async () => jailFinding(await probeConfinement(TRIAL)) },
    ...PRODUCTION_CHECKS.map(({ name, isRequired, look }) => ({
      name,
      run: async (progress: Progress): Promise<Finding> => {
        const [{ usable }, finding] = [await judged(progress), await look(host)];
        // What is not in use needs no remedy.
        if (!usable) return { status: 'n/a', found: finding.found };
        const refused = isRequired && finding.status === 'warn';
        return refused ? { ...finding, found: `${finding.found}; production mode does not start` } : finding;
      },
    })),
  ];
}

export function jailFinding({ missing }: Confinement): Finding {
  const always = 'no privileges, seccomp';
  if (missing.length === 0)
    return { status: 'ok', found: `${always}, namespaces, and a user and limits for every microVM` };
  const fix = 'run the daemon as root on a host with cgroup v2, or use Firecracker';
  return { status: 'warn', found: `${always}; not to be had here: ${missing.join('; ')}`, fix };
}

async function judge(location: Location, progress: Progress): Promise<FirecrackerVerdict> {
  const { env } = process;
  const images = await locateGuestImages(location).catch((error: unknown) => {
    if (error instanceof MissingGuestImages) return undefined;
    throw error;
  });
  if (images === undefined) return { usable: false, why: 'the guest images are not built', remedy: 'npm run setup' };
  const host = {
    images,
    binaries: {
      firecracker: env.INSTAVM_FIRECRACKER_BIN ?? 'firecracker',
      jailer: env.INSTAVM_JAILER_BIN ?? 'jailer',
    },
    cacheDirectory: location.cacheDirectory,
    dataDirectory: env.INSTAVM_DATA_DIR ?? join(homedir(), '.local', 'share', 'instavm'),
    probe: true,
  };
  return judgeFirecracker(host, progress);
}

export function backendFinding(verdict: FirecrackerVerdict): Finding {
  const found = verdict.usable
    ? `Firecracker ${verdict.version} with its jailer, if the daemon runs as this user`
    : `QEMU, and not Firecracker: ${verdict.why}`;
  if (!verdict.usable) return { status: 'warn', found, fix: verdict.remedy };
  return isAtLeast(verdict.version, HANGING)
    ? {
        status: 'warn',
        found: `${found}; this release may hang after a snapshot under traffic (firecracker issue 6074)`,
        fix: 'until that is closed, install a release before 1.16',
      }
    : { status: 'ok', found };
}
