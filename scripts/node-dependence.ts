/**
 * Which tests could come out differently on another version of Node. The cores and codecs are the language alone, with
 * hashes and packages that need no more: what they do on one version they do on all. Sockets, TLS, HTTP, processes, threads,
 * timers, native modules and the files that are written are Node's, and so is every package that is built on them.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/** Whether a compiled file, or one that it imports, imports anything but the language and what only computes or reads. */
export function dependsOnNode(file: string, visited = new Set<string>()): boolean {
  if (visited.has(file)) return false;
  visited.add(file);
  return importsOf(file).some((imported) => {
    if (!imported.startsWith('.')) return !SAME_EVERYWHERE.has(imported);
    const path = resolve(dirname(file), imported);
    return existsSync(path) && dependsOnNode(path, visited);
  });
}

/** What looks like an import in a text counts as well: a test too many is run. */
function importsOf(file: string): string[] {
  const found = readFileSync(file, 'utf8').matchAll(/\b(?:from\s|import\s|import\()\s*['"]([^'"]+)['"]/g);
  return [...found].map(([, name = '']) => name);
}

const SAME_EVERYWHERE: ReadonlySet<string> = new Set([
  'node:assert',
  'node:assert/strict',
  'node:buffer',
  'node:crypto',
  'node:fs',
  'node:path',
  'node:test',
  'node:url',
  '@rgrove/parse-xml',
  'dns-packet',
  'fast-check',
  'ipaddr.js',
  'zod',
]);
