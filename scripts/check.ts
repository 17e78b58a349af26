/**
 * `npm run check`, after Biome and tsc: the crate's format, lints and tests, the licences of all dependencies, then the
 * unit tests, of which the architecture rules are a part. Every step is one line; what a failed step printed follows it.
 */
import { runCargo } from '../runtime/crate-build.ts';
import { missingForCheck } from '../runtime/preflight.ts';
import { endWithCaller } from './ending.ts';
import { checkLicences } from './licences.ts';
import { removeStaleOutputs } from './remove-stale.ts';
import { demand, runScript } from './steps.ts';
import { runTests, testGroups } from './test-runner.ts';

await runScript(async () => {
  const ended = endWithCaller();
  removeStaleOutputs();
  demand(missingForCheck());
  await step('cargo fmt --check', ['fmt', '--check']);
  await step('cargo clippy', ['clippy', '--locked', '--all-targets', '--features', 'fuzz', '--', '-D', 'warnings']);
  await step('cargo test', ['test', '--locked', '--quiet']);
  const { npm, cargo } = checkLicences();
  console.error(`licences: ok (${npm} npm packages, ${cargo} crates)`);
  await runTests(testGroups('unit', []), ended);
});

async function step(name: string, args: readonly string[]): Promise<void> {
  const started = performance.now();
  await runCargo(args, (line) => /^\s*(Compiling|Checking|Downloading) /.test(line) && console.error(line));
  console.error(`${name}: ok (${((performance.now() - started) / 1000).toFixed(1)} s)`);
}
