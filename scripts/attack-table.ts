/** `npm run attack-table`: writes the table of attacks in docs/security.md anew from the tests. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { attacks, attackTable } from './attacks.ts';
import { runScript, StepFailed } from './steps.ts';

await runScript(async () => {
  const path = join(PROJECT_ROOT, 'docs', 'security.md');
  const page = readFileSync(path, 'utf8');
  const table = /^\| attack \|.*(?:\n\|.*)*/m;
  if (!table.test(page)) throw new StepFailed(`${path} has no table of attacks to replace`);
  const list = attacks();
  writeFileSync(
    path,
    page.replace(table, () => attackTable(list)),
  );
  console.log(`${list.length} attacks`);
});
