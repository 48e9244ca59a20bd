import { defineConfig } from 'vite';

// One flat folder of files, named by their content, beside two pages. Paths are relative, for proxies that serve the
// server below a path of theirs: the pages are at `/` and `/dashboard`, everything else is in `playground/`.
export default defineConfig({
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    outDir: '../src/tgi/api/playground/static',
    emptyOutDir: true,
    assetsDir: 'playground',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
    chunkSizeWarningLimit: 600,
    license: { fileName: 'playground/licenses.txt' },
    rollupOptions: {
      input: ['index.html', 'dashboard.html'],
    },
  },
});
