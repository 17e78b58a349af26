/** The manual pages say what `--help` says, in roff without a fault. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { allCommands, commandTree } from '../../cli/command-tree.ts';
import { manPages } from '../../cli/man-pages.ts';
import { buildProgram } from '../../cli/program.ts';
import { findProgram } from '../../runtime/programs.ts';

const tree = commandTree(buildProgram());
const pages = manPages(tree, { version: '1.2.3', date: '2026-01-31' });
const skip = findProgram('mandoc') === undefined ? 'no mandoc' : false;

test('there is a page for the program and one for each of its commands', () => {
  const commands = tree.subcommands.map(({ path }) => `stayput-${path[0]}.1`);
  assert.deepEqual(
    pages.map(({ file }) => file),
    ['stayput.1', ...commands],
  );
});

test('mandoc finds nothing to object to', { skip }, () => {
  for (const { file, text } of pages) assert.equal(mandoc(['-Tlint', '-W', 'warning'], text), '', file);
});

test('a page has its commands with all of their options, choices and defaults', { skip }, () => {
  for (const group of tree.subcommands) {
    const { text = '' } = pages.find(({ file }) => file === `stayput-${group.path[0]}.1`) ?? {};
    const shown = mandoc(['-Tascii'], text).replaceAll(/.[\b]/g, '').replaceAll(/\s+/g, ' ');
    for (const { path, options } of allCommands(group).filter(({ subcommands }) => subcommands.length === 0)) {
      const description = shown.indexOf('DESCRIPTION');
      const section = shown.slice(Math.max(description, shown.indexOf(`stayput ${path.join(' ')} `, description)));
      for (const { long, takes, fallback } of options) {
        assert.ok(section.includes(long), `${path.join(' ')} ${long}`);
        if (takes?.kind === 'choices') assert.ok(section.includes(takes.choices.join(', ')), `${path} ${long}`);
        if (fallback !== undefined) assert.ok(section.includes(`default: ${fallback}`), `${path} ${long}`);
      }
    }
  }
});

test('what help says below the options is in the page', () => {
  const page = pages.find(({ file }) => file === 'stayput-policy.1')?.text ?? '';
  assert.match(page, /FROM and TO are addresses or names\. Exit code 1 unless it is allowed\./);
});

test('what roff would take for a request or an escape is literal', () => {
  const text = manPages(
    {
      ...tree,
      subcommands: [
        {
          path: ['odd'],
          description: '.starts with a dot, has C:\\new and it’s',
          notes: "'quote at the start",
          options: [],
          args: [],
          subcommands: [],
        },
      ],
    },
    { version: '1.2.3', date: '2026-01-31' },
  )[1]?.text;
  assert.match(text ?? '', /^\\&\.starts with a dot, has C:\\enew and it\\\(cqs\.$/m);
  assert.match(text ?? '', /^\\\(aqquote at the start$/m);
});

function mandoc(args: readonly string[], input: string): string {
  return spawnSync('mandoc', args, { input, encoding: 'utf8' }).stdout;
}
