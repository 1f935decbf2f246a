/** What runs inside the machine that stands for a KVM host (scripts/nested); everything there is emulated twice, so deadlines are long. */
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

const conditions = ['instavm-source', 'node', 'import', 'module', 'default'];

export default defineConfig({
  root: join(import.meta.dirname, '../..'),
  // The sources are on a read-only disk.
  cacheDir: '/tmp/vite',
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
  test: {
    name: 'nested',
    include: ['{packages,apps,tests}/**/*.nested.test.ts'],
    exclude: ['**/node_modules/**', '**/dist/**'],
    // As vitest.config.ts says.
    chaiConfig: { truncateThreshold: 2_000 },
    // For what never happens. Emulated twice, on a busy host, anything else may take minutes.
    expect: { poll: { timeout: 300_000 } },
    testTimeout: 600_000,
    hookTimeout: 900_000,
    fileParallelism: false,
    // A busy single processor serves nobody better with more of them.
    maxWorkers: 1,
    execArgv: ['--conditions=instavm-source'],
  },
});
