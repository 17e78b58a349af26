/**
 * `npm test [-- PATH-PART ...]`: the crate's tests, unit tests and end-to-end tests.
 * `npm run test:unit [-- PATH-PART ...]`: unit tests only; needs no rights and no tools.
 * `npm run test:e2e [-- PATH-PART ...]`: end-to-end tests only, as after `npm run check`, which has the others.
 * `node dist/scripts/test.js node`: those unit tests that depend on the version of Node, for a second one.
 */
import { ensureDataplaneBuilt, runCargo } from '../runtime/crate-build.ts';
import { missingForTests } from '../runtime/preflight.ts';
import { endWithCaller } from './ending.ts';
import { removeStaleOutputs } from './remove-stale.ts';
import { demand, runScript, StepFailed } from './steps.ts';
import { nodeGroups, runTests, testGroups } from './test-runner.ts';

await runScript(async () => {
  const [suite, ...filters] = process.argv.slice(2);
  const ended = endWithCaller();
  removeStaleOutputs();
  switch (suite) {
    case 'unit':
      return runTests(testGroups('unit', filters), ended);
    case 'node':
      return runTests(nodeGroups(filters), ended);
    case 'e2e':
    case 'all': {
      demand(missingForTests());
      const progress = (line: string): void => console.error(line);
      await ensureDataplaneBuilt(progress);
      const endToEnd = testGroups('e2e', filters);
      if (suite === 'e2e') return runTests(endToEnd, ended);
      if (filters.length === 0) await runCargo(['test', '--locked'], progress);
      return runTests([...testGroups('unit', filters), ...endToEnd], ended);
    }
    default:
      throw new StepFailed(`"${suite ?? ''}" is not a suite: all, e2e, node or unit`);
  }
});
