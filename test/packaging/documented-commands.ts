/**
 * The commands in pages for users. A fenced block without a language is commands to type; output and files have one
 * (`text`, `json`). PLAN says of each block of a page, in its order, where a test runs it, or why none does.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';

export type Machine = 'map server' | 'db' | 'web';

export type Treatment =
  /** On these machines, one after the other. */
  { readonly begins: string; readonly on: readonly Machine[] } | { readonly begins: string; readonly notRun: string };

export interface Block {
  readonly page: string;
  readonly line: number;
  readonly text: string;
}

export function commandBlocks(page: string): readonly Block[] {
  const blocks: Block[] = [];
  let open: { readonly language: string; readonly line: number; readonly text: string[] } | undefined;
  for (const [i, line] of readFileSync(join(PROJECT_ROOT, page), 'utf8').split('\n').entries()) {
    const language = /^```(.*)$/.exec(line)?.[1];
    if (language === undefined) open?.text.push(line);
    else if (open === undefined) open = { language, line: i + 1, text: [] };
    else {
      if (open.language === '') blocks.push({ page, line: open.line, text: open.text.join('\n') });
      open = undefined;
    }
  }
  return blocks;
}

const MAKES_PACKAGE = 'makes the package, as the test does before it installs it';

export const PLAN: Readonly<Record<string, readonly Treatment[]>> = {
  'docs/quick-start.md': [
    { begins: 'npm ci', notRun: MAKES_PACKAGE },
    { begins: 'sudo apt-get install -y ./stayput_', on: ['map server', 'db', 'web'] },
    { begins: 'sudo -u stayput-mapserver stayput mapserver init', on: ['map server'] },
    { begins: 'sudo -u stayput-mapserver stayput token create', on: ['map server'] },
    { begins: 'sudo systemctl enable --now stayput-dataplane', on: ['db', 'web'] },
    { begins: 'sudo stayput status', on: ['db', 'web'] },
    { begins: 'sudo stayput resolve db', on: ['web'] },
    { begins: 'sudo -u stayput-mapserver stayput agents grant AGENT', on: ['map server'] },
    { begins: 'sudo stayput eid attach 10.77.1.20/32', on: ['db'] },
    { begins: 'sudo stayput eid attach 10.77.1.20/32', on: ['web'] },
  ],
  'docs/install.md': [
    { begins: 'npm ci', notRun: MAKES_PACKAGE },
    { begins: 'sudo apt-get install -y ./stayput_', notRun: 'the same as in quick-start.md, which is run' },
    { begins: 'tar -xzf stayput-', notRun: 'packages.test.ts installs, upgrades and uninstalls the tarball' },
    { begins: 'npm pack', notRun: 'fetches the packages of npm that it needs' },
    { begins: 'sudo stayput dataplane build', notRun: 'compiles for minutes' },
  ],
  'docs/operate.md': [
    {
      begins: 'cd /opt/stayput && git pull',
      notRun: 'upgrades a checkout; packages are upgraded in root-install.test.ts',
    },
    { begins: 'sudo stayput mapserver backup', on: ['map server'] },
    {
      begins: 'sudo stayput agent reset-identity',
      notRun: 'two alternatives, for copied machines: test/e2e/copy.test.ts',
    },
  ],
  'docs/troubleshooting.md': [
    {
      begins: 'stayput status',
      notRun: 'with placeholders; test/e2e/doctor.test.ts and test/cli/bugreport.test.ts run each',
    },
  ],
  'README.md': [
    { begins: 'npm ci\nnpm run demo', notRun: 'test/e2e/demo.test.ts runs the demo' },
    { begins: 'sudo apt-get install', notRun: 'the same as in quick-start.md, which is run' },
    { begins: 'sudo apt-get install', notRun: 'the same as in quick-start.md, which is run' },
  ],
};
