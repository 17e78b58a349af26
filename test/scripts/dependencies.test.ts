/** What the lockfiles fix, and how licences and audits are read. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { ofCargoAudit, ofNpmAudit } from '../../scripts/audit-reports.ts';
import { ALLOWED, CRATES, isAllowed, NPM_LOCKS, ofPackageLock } from '../../scripts/licences.ts';

interface Locked {
  readonly version: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly optional?: boolean;
}

test('each npm package is locked to its content, and no lockfile names a registry', () => {
  for (const lock of NPM_LOCKS) {
    const { packages } = JSON.parse(read(lock)) as { packages: Record<string, Locked> };
    for (const [path, entry] of Object.entries(packages)) {
      if (path === '') continue;
      assert.equal(entry.resolved, undefined, `${lock}: ${path}`);
      if (isBiomeElsewhere(path, entry)) continue;
      assert.match(entry.integrity ?? '', /^sha512-[A-Za-z0-9+/]{86}==$/, `${lock}: ${path}`);
    }
  }
});

test('each crate is locked to its content and comes from crates.io', () => {
  for (const crate of CRATES) {
    const entries = read(`${crate}/Cargo.lock`).split('[[package]]\n').slice(1);
    assert.ok(entries.length > 0, crate);
    for (const entry of entries) {
      const source = /^source = "(.*)"$/m.exec(entry)?.[1];
      // Without a source it is a folder of this repository.
      if (source === undefined) continue;
      assert.equal(source, 'registry+https://github.com/rust-lang/crates.io-index', entry);
      assert.match(entry, /^checksum = "[0-9a-f]{64}"$/m);
    }
  }
});

test('no configuration of npm or cargo in the repository names a registry', () => {
  const folders = ['', ...CRATES, '.ci/second-node'];
  const files = folders.flatMap((folder) =>
    ['.npmrc', '.cargo/config.toml', '.cargo/config', 'Cargo.toml', 'package.json'].map((name) => join(folder, name)),
  );
  const present = files.filter((file) => existsSync(join(PROJECT_ROOT, file)));
  assert.ok(present.includes('package.json'));
  for (const file of present) assert.doesNotMatch(read(file), /registr(y|ies)\b.*(=|:).*\/\/|replace-with/, file);
});

test('every npm package states an allowed licence', () => {
  for (const { name, licence } of NPM_LOCKS.flatMap((lock) => ofPackageLock(read(lock)))) {
    assert.ok(licence !== undefined && isAllowed(licence), `${name}: ${licence}`);
  }
});

test('of a choice one licence has to be allowed, of a sum all', () => {
  assert.ok(!ALLOWED.has('GPL-2.0') && ALLOWED.has('MIT'));
  for (const expression of ['MIT', '(BSD-3-Clause OR GPL-2.0)', 'ISC AND (Apache-2.0 OR GPL-3.0)', 'MIT/GPL-2.0']) {
    assert.equal(isAllowed(expression), true, expression);
  }
  for (const expression of ['GPL-2.0', 'MIT AND GPL-2.0', 'ISC AND (LGPL-3.0 OR GPL-3.0)', 'MIT WITH some-exception']) {
    assert.equal(isAllowed(expression), false, expression);
  }
  assert.equal(isAllowed('GPL-2.0 AND MIT OR ISC'), true);
  assert.equal(isAllowed('Apache-2.0 WITH LLVM-exception'), true);
  for (const nonsense of ['', 'MIT OR', '(MIT', 'MIT MIT', 'SEE LICENSE IN x']) {
    assert.throws(() => isAllowed(nonsense), /is no licence expression/, nonsense);
  }
});

test('an audit that could not be made is skipped and says why, and is never fine', () => {
  const clean = { auditReportVersion: 2, vulnerabilities: {} };
  assert.deepEqual(ofNpmAudit(JSON.stringify(clean)), { result: 'no known vulnerabilities', lines: [] });
  const bad = { auditReportVersion: 2, vulnerabilities: { ws: { severity: 'high' } } };
  assert.deepEqual(ofNpmAudit(JSON.stringify(bad)), { result: 'vulnerable', lines: ['ws: high'] });
  const refused = { message: '405 Method Not Allowed - POST https://packages.example/-/npm/v1/security' };
  assert.deepEqual(ofNpmAudit(JSON.stringify(refused)), {
    result: 'skipped',
    lines: ['405 Method Not Allowed - POST the registry'],
  });
  for (const nothing of ['', 'null', '[]', '{}', '{"vulnerabilities":{}}']) {
    assert.equal(ofNpmAudit(nothing).result, 'skipped', nothing);
    assert.equal(ofCargoAudit(nothing, '').result, 'skipped', nothing);
  }
  assert.deepEqual(ofCargoAudit('', 'error: couldn’t fetch advisory database\nmore'), {
    result: 'skipped',
    lines: ['error: couldn’t fetch advisory database'],
  });
  assert.equal(ofCargoAudit('{"vulnerabilities":{"list":[]}}', '').result, 'no known vulnerabilities');
  const advisory = { advisory: { id: 'RUSTSEC-2026-0001', title: 'bad' }, package: { name: 'x', version: '1.0.0' } };
  assert.deepEqual(ofCargoAudit(JSON.stringify({ vulnerabilities: { list: [advisory] } }), ''), {
    result: 'vulnerable',
    lines: ['x 1.0.0: RUSTSEC-2026-0001 bad'],
  });
});

/** The linter's programs for other platforms, which cannot be asked for where the lockfile is made. */
function isBiomeElsewhere(path: string, { optional }: Locked): boolean {
  return optional === true && /^node_modules\/@biomejs\/cli-(?!linux-x64$)/.test(path);
}

function read(path: string): string {
  return readFileSync(join(PROJECT_ROOT, path), 'utf8');
}
