// SPDX-License-Identifier: Apache-2.0
// How the dashboard is built, served while writing it, and tested. The collector embeds `dist/` as it is,
// so every address in it is relative (it must work behind `/ui/`) and nothing is inlined (strict CSP).
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

const collector = process.env['PILLION_COLLECTOR'] ?? 'http://127.0.0.1:8710';

export default defineConfig({
  base: './',
  plugins: [react()],
  build: {
    outDir: 'dist',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { host: '127.0.0.1', proxy: { '/pillion': collector } },
  test: {
    projects: [
      { test: { name: 'unit', include: ['src/**/*.test.ts'] } },
      {
        test: {
          name: 'browser',
          include: ['test/browser/**/*.test.ts'],
          testTimeout: 30_000,
          hookTimeout: 60_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
