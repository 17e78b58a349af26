/**
 * `npm run dashboard-pictures`: plays roams and moves in the laboratory, has the real Prometheus record them, and draws
 * the dashboards of it for docs/pictures/.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { missingForTests } from '../runtime/preflight.ts';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { recordRun } from '../test/lab/recorded-run.ts';
import { BOARDS } from './dashboards/boards.ts';
import { drawBoard } from './dashboards/picture.ts';
import { readBoard } from './dashboards/recording.ts';
import { demand, runScript } from './steps.ts';

await runScript(async () => {
  demand(missingForTests());
  const narrator = { say: (what: string) => console.log(what), watch: () => undefined };
  const { prometheus, close, ...span } = await recordRun(['roam', 'move', 'roam', 'move'], narrator);
  try {
    const folder = join(PROJECT_ROOT, 'docs/pictures');
    mkdirSync(folder, { recursive: true });
    for (const board of BOARDS) {
      const picture = drawBoard(board, await readBoard(prometheus, board, span), span);
      writeFileSync(join(folder, `${board.uid}.svg`), picture);
      console.log(`docs/pictures/${board.uid}.svg`);
    }
  } finally {
    await close();
  }
});
