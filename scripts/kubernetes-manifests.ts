/** `npm run manifests`: deploy/kubernetes, which is the chart with its own values, for those who have no Helm. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { renderChart } from './helm.ts';
import { runScript } from './steps.ts';

export const MANIFESTS = join(PROJECT_ROOT, 'deploy/kubernetes');

/** By the name of their files. @throws StepFailed */
export function plainManifests(): ReadonlyMap<string, string> {
  return new Map(
    ['mapserver', 'agent'].map((part) => {
      const other = part === 'agent' ? 'mapserver' : 'agent';
      // Helm's own annotations and notes on sources say nothing without Helm.
      const text = renderChart({ [other]: { enabled: false } }).replace(/^# Source: .*\n/gm, '');
      return [`${part}.yaml`, `# Made from the chart by \`npm run manifests\`.\n${text}`];
    }),
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await runScript(async () => {
    for (const [name, text] of plainManifests()) writeFileSync(join(MANIFESTS, name), text);
  });
}
