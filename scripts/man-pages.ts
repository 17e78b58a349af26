/** `node dist/scripts/man-pages.js FOLDER`: writes the manual pages. SOURCE_DATE_EPOCH, if set, is their date. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { commandTree } from '../cli/command-tree.ts';
import { manPages } from '../cli/man-pages.ts';
import { buildProgram } from '../cli/program.ts';
import { VERSION } from '../runtime/project-root.ts';
import { runScript, StepFailed } from './steps.ts';

await runScript(async () => {
  const [folder] = process.argv.slice(2);
  if (folder === undefined) throw new StepFailed('say where they go: man-pages.js FOLDER');
  mkdirSync(folder, { recursive: true });
  const epoch = process.env.SOURCE_DATE_EPOCH;
  const date = (epoch === undefined ? new Date() : new Date(Number(epoch) * 1000)).toISOString().slice(0, 10);
  for (const { file, text } of manPages(commandTree(buildProgram()), { version: VERSION, date })) {
    writeFileSync(join(folder, file), text);
  }
});
