/** `npm run build:dataplane`: builds the crate's release binary unless it is up to date. */
import { dataplaneBinary, ensureDataplaneBuilt } from '../runtime/crate-build.ts';
import { missingForBuild } from '../runtime/preflight.ts';
import { demand, runScript } from './steps.ts';

await runScript(async () => {
  if (dataplaneBinary() === undefined) demand(missingForBuild());
  console.log(await ensureDataplaneBuilt((line) => console.error(line)));
});
