import assert from 'node:assert/strict';
import { test } from 'node:test';
import { debianPackages, missingForDemo, versionAtLeast, wantedRust } from '../../runtime/preflight.ts';
import { findProgram } from '../../runtime/programs.ts';

test('versions are compared by number, not by text', () => {
  assert.equal(versionAtLeast('20.9.0', '20.19'), false);
  assert.equal(versionAtLeast('20.19.0', '20.19'), true);
  assert.equal(versionAtLeast('24.0.0', '20.19'), true);
  assert.equal(versionAtLeast('1.85', '1.85.0'), true);
  assert.equal(versionAtLeast('1.63.0-nightly', '1.85'), false);
});

test('the wanted Rust version is read from Cargo.toml', () => {
  assert.equal(wantedRust('[package]\nname = "x"\nrust-version = "1.85"\n'), '1.85');
  assert.equal(wantedRust('[package]\nname = "x"\n'), '1.0');
});

test('programs are found in PATH and in the system folders', () => {
  assert.match(findProgram('sh') ?? '', /\/sh$/);
  assert.equal(findProgram('no-such-program-of-stayput'), undefined);
});

test('each missing thing is one line that says what to do', () => {
  const path = process.env.PATH;
  process.env.PATH = '/nonexistent';
  try {
    for (const line of missingForDemo()) assert.match(line, /^[^\n]+: [^\n]+$/);
  } finally {
    process.env.PATH = path;
  }
});

test('the packages that the tests use are listed once each', () => {
  const packages = debianPackages();
  assert.equal(new Set(packages).size, packages.length);
  assert.ok(packages.includes('iproute2') && packages.includes('tshark'));
});
