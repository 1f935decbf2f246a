/** The build of the dashboard: files that the daemon serves as they are, below /dashboard. */
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  base: '/dashboard/',
  plugins: [react()],
  build: {
    target: 'es2022',
    // A data: URL would need a policy that lets them be.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
