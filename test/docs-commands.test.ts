/** Every block of commands in the pages is run by a test, or it is said why not. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { commandBlocks, fencedBlocks, OF_FILES, PLAN } from './packaging/documented-commands.ts';

for (const page of pages()) {
  test(`${page}: each block of commands is run by a test, or it is said why not`, () => {
    const treatments = PLAN[page] ?? [];
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

test('what is planned is for pages that are there', () => {
  const known = new Set(pages());
  assert.deepEqual(
    Object.keys(PLAN).filter((page) => !known.has(page)),
    [],
  );
});

test('a block that is not for typing says in which language it is', () => {
  const others = pages()
    .flatMap(fencedBlocks)
    .filter(({ language }) => language !== '' && !OF_FILES.has(language));
  assert.deepEqual(
    others.map(({ page, line, language }) => `${page}:${line} ${language}`),
    [],
  );
});

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

function pages(): string[] {
  return ['', 'docs', 'deploy'].flatMap((folder) => {
    const names = readdirSync(join(PROJECT_ROOT, folder), { recursive: folder !== '', encoding: 'utf8' });
    return names.filter((name) => name.endsWith('.md')).map((name) => join(folder, name));
  });
}
