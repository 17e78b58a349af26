/** `npm run dashboards`: writes deploy/grafana/dashboards/ anew from scripts/dashboards/. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { BOARDS } from './dashboards/boards.ts';
import { grafanaDashboard } from './dashboards/grafana.ts';
import { runScript } from './steps.ts';

await runScript(async () => {
  for (const board of BOARDS) {
    const text = `${JSON.stringify(grafanaDashboard(board), null, 2)}\n`;
    writeFileSync(join(PROJECT_ROOT, 'deploy/grafana/dashboards', `${board.uid}.json`), text);
  }
  console.log(`${BOARDS.length} dashboards`);
});
