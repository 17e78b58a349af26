/**
 * `npm run audit`: known vulnerabilities of all dependencies, by `npm audit` and `cargo audit`. Fails on any. Their
 * databases are elsewhere: what could not be asked is said to be skipped, with the reason, and never to be fine.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findProgram } from '../runtime/programs.ts';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { type Audit, ofCargoAudit, ofNpmAudit } from './audit-reports.ts';
import { CRATES } from './licences.ts';
import { runScript, StepFailed } from './steps.ts';

await runScript(async () => {
  const audits: (readonly [name: string, audit: Audit])[] = [['npm audit', npmAudit()]];
  for (const crate of CRATES) audits.push([`cargo audit, ${crate}`, cargoAudit(crate)]);
  for (const [name, { result, lines }] of audits) {
    console.error(`${name}: ${result}${lines.length === 0 ? '' : `\n  ${lines.join('\n  ')}`}`);
  }
  if (audits.some(([, { result }]) => result === 'vulnerable'))
    throw new StepFailed('known vulnerabilities: see above');
});

function npmAudit(): Audit {
  const { stdout } = spawnSync('npm', ['audit', '--json'], { cwd: PROJECT_ROOT, encoding: 'utf8' });
  return ofNpmAudit(stdout);
}

function cargoAudit(crate: string): Audit {
  if (findProgram('cargo-audit') === undefined) {
    return { result: 'skipped', lines: ['cargo-audit is not there: cargo install cargo-audit --locked'] };
  }
  const lock = join(PROJECT_ROOT, crate, 'Cargo.lock');
  const { stdout, stderr } = spawnSync('cargo', ['audit', '--json', '--file', lock], { encoding: 'utf8' });
  return ofCargoAudit(stdout, stderr);
}
