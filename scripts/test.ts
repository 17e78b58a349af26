/**
 * `npm test [-- PATH-PART ...]`: the crate's tests, unit tests and end-to-end tests.
 * `npm run test:unit [-- PATH-PART ...]`: unit tests only; needs no rights and no tools.
 */
import { ensureDataplaneBuilt, runCargo } from '../runtime/crate-build.ts';
import { missingForTests } from '../runtime/preflight.ts';
import { removeStaleOutputs } from './remove-stale.ts';
import { demand, runScript, StepFailed } from './steps.ts';
import { runTests, testFiles } from './test-runner.ts';

await runScript(async () => {
  const [suite, ...filters] = process.argv.slice(2);
  removeStaleOutputs();
  switch (suite) {
    case 'unit':
      return runTests([{ suite: 'unit', files: testFiles('unit', filters) }]);
    case 'all': {
      demand(missingForTests());
      const progress = (line: string): void => console.error(line);
      await ensureDataplaneBuilt(progress);
      if (filters.length === 0) await runCargo(['test', '--locked'], progress);
      return runTests([
        { suite: 'unit', files: testFiles('unit', filters) },
        { suite: 'e2e', files: testFiles('e2e', filters) },
      ]);
    }
    default:
      throw new StepFailed(`"${suite ?? ''}" is not a suite: all or unit`);
  }
});
