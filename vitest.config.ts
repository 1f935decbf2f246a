/**
 * Two projects: `unit` needs no guest and runs in parallel; `vm` boots real microVMs, one test file at a time, because a
 * small machine emulating several guests at once measures nothing but its own scheduler.
 */
import { defineConfig } from 'vitest/config';

const conditions = ['instavm-source', 'node', 'import', 'module', 'default'];
const shared = {
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
};
/** For what never happens. Whether it happens soon is not for these to say: on a busy machine nothing does. */
const patience = { expect: { poll: { timeout: 60_000 } }, testTimeout: 120_000, hookTimeout: 300_000 };
/** A failed comparison says what was there, not "[ 1, …(1) ]": of a run elsewhere, its message is all there is. */
const reasons = { chaiConfig: { truncateThreshold: 2_000 } };
const roots = '{packages,apps,tests,scripts,bench}';

export default defineConfig({
  test: {
    reporters: ['default'],
    projects: [
      {
        ...shared,
        test: {
          name: 'unit',
          globalSetup: ['tests/acme-servers.ts'],
          include: [`${roots}/**/*.test.ts`],
          exclude: ['**/node_modules/**', '**/dist/**', '**/*.vm.test.ts', '**/*.nested.test.ts'],
          ...patience,
          ...reasons,
          execArgv: ['--conditions=instavm-source'],
        },
      },
      {
        ...shared,
        test: {
          name: 'vm',
          globalSetup: ['tests/vm-images.ts'],
          include: [`${roots}/**/*.vm.test.ts`],
          exclude: ['**/node_modules/**', '**/dist/**'],
          ...patience,
          ...reasons,
          // Against hangs alone: on a machine that is busy as well, an emulated guest may need ten times what it takes elsewhere.
          testTimeout: 300_000,
          hookTimeout: 600_000,
          fileParallelism: false,
          execArgv: ['--conditions=instavm-source'],
        },
      },
    ],
  },
});
