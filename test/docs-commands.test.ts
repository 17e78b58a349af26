/** Every block of commands in the pages for users is run by a test, or it is said why not. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { commandBlocks, PLAN } from './packaging/documented-commands.ts';

for (const [page, treatments] of Object.entries(PLAN)) {
  test(`${page}: each block of commands is run by a test, or it is said why not`, () => {
    const blocks = commandBlocks(page);
    const same = blocks.map(({ line, text }, i) => {
      const begins = treatments[i]?.begins;
      return begins !== undefined && text.startsWith(begins) ? begins : `line ${line}, nobody knows: ${text}`;
    });
    assert.deepEqual(
      same,
      treatments.map(({ begins }) => begins),
    );
  });
}

test('README.md says nothing else than quick-start.md', () => {
  const known = commandBlocks('docs/quick-start.md').flatMap(({ text }) => text.split('\n'));
  const section = /^## Use it$([\s\S]*?)^## /m.exec(readFileSync(join(PROJECT_ROOT, 'README.md'), 'utf8'))?.[1] ?? '';
  const lines = [...section.matchAll(/^```\n([\s\S]*?)^```$/gm)].flatMap(([, text = '']) => text.trim().split('\n'));
  assert.ok(lines.length >= 8);
  assert.deepEqual(
    lines.filter((line) => !known.includes(line)),
    [],
  );
});
