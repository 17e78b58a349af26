/** Which peers take part, told by stand-ins that only know their version. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { goModuleVersion } from '../../bench/peer-programs.ts';
import { choosePeers } from '../../bench/peers.ts';
import { UsageError } from '../../proto/errors.ts';

let dir = '';
const path = process.env.PATH;

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'stayput-peers-'));
  program('wireguard-go', 'wireguard-go 1.2.3');
  program('nebula', 'Version: 1.11.1');
  program('nebula-cert', '');
  program('tincd', 'tinc version 1.0.36 (built somewhere)');
  process.env.PATH = dir;
});

after(() => {
  process.env.PATH = path;
  rmSync(dir, { recursive: true });
});

test('without options everything found takes part, and VXLAN', () => {
  const names = chosen();
  for (const name of ['vxlan', 'wireguard-go', 'nebula', 'tinc']) assert.ok(names.includes(name), name);
});

test('--peers takes those that are named, and none', () => {
  assert.deepEqual(chosen('nebula, vxlan'), ['vxlan', 'nebula']);
  assert.deepEqual(chosen('none'), []);
  assert.deepEqual(chosen('wireguard-go'), ['wireguard-go']);
});

test('a program that is named is used instead of the one on the PATH, several of a kind by their labels', () => {
  const wireguard = join(dir, 'wireguard-go');
  assert.deepEqual(chosen('wireguard-go', [`wireguard-go:old=${wireguard}`, `wireguard-go:new=${wireguard}`]), [
    'wireguard-go:old',
    'wireguard-go:new',
  ]);
  assert.deepEqual(chosen('wireguard-go:new', [`wireguard-go:old=${wireguard}`, `wireguard-go:new=${wireguard}`]), [
    'wireguard-go:new',
  ]);
});

test('other builds of Stayput take part beside this one, under their labels', () => {
  program('older', 'stayput-dataplane 0.0.9');
  const [other] = choosePeers({ peers: 'stayput:old', peer: [`stayput:old=${join(dir, 'older')}`] }, () => {});
  assert.deepEqual([other?.name, other?.version, other?.encrypted], ['stayput:old', '0.0.9', true]);
});

test('a nebula that knows offloads is measured without and with them', () => {
  program('newer-nebula', 'Version: 1.12.0');
  program('newer-nebula-cert', '');
  assert.deepEqual(chosen('nebula', [`nebula=${join(dir, 'newer-nebula')}`]), ['nebula', 'nebula-offloads']);
});

test('what cannot be measured is refused in one line', () => {
  const plain = join(dir, 'plain');
  writeFileSync(plain, 'not a program', { mode: 0o644 });
  const cases: readonly (readonly [string | undefined, readonly string[], RegExp])[] = [
    ['zerotier', [], /there is no peer "zerotier"; known are vxlan, stayput, wireguard-go/],
    ['', [], /there is no peer ""/],
    ['none,vxlan', [], /there is no peer "none"/],
    [undefined, ['zerotier=/bin/true'], /there is no peer zerotier/],
    [undefined, [`stayput=${join(dir, 'nebula')}`], /needs a label/],
    ['stayput', [], /stayput is not on the PATH/],
    [undefined, ['nebula'], /must be NAME=PATH/],
    [undefined, ['nebula='], /the empty path is not an executable file/],
    [undefined, [`nebula=${plain}`], /is not an executable file/],
    [undefined, [`nebula=${dir}`], /is not an executable file/],
    [undefined, ['nebula=/does/not/exist'], /is not an executable file/],
    [undefined, [`nebula:a b=${plain}`], /there is no peer nebula:a b/],
    [undefined, [`constructor=${plain}`], /there is no peer constructor/],
  ];
  for (const [peers, peer, message] of cases) {
    assert.throws(
      () => choosePeers({ peers, peer }, () => {}),
      (error) => error instanceof UsageError && message.test(error.message) && !error.message.includes('\n'),
      String(message),
    );
  }
});

test('a tinc of another series is left out with a reason, and refused when asked for', () => {
  program('other-tincd', 'tinc version 1.1pre18');
  assert.throws(
    () => choosePeers({ peers: undefined, peer: [`tinc=${join(dir, 'other-tincd')}`] }, () => {}),
    /only 1\.0 is supported/,
  );
  program('tincd', 'tinc version 1.1pre18');
  const notes: string[] = [];
  assert.ok(!namesOf(choosePeers({ peers: undefined, peer: [] }, (line) => notes.push(line))).includes('tinc'));
  assert.match(notes.join('\n'), /tincd is left out: .*only 1\.0/);
});

test('the version of a Go program is read from its build information', () => {
  const binary = join(dir, 'binary');
  writeFileSync(binary, Buffer.from('\x00\xffmod\texample.org/tunnel\tv1.2.3-abc\th1:xyz=\n\x00', 'latin1'));
  assert.equal(goModuleVersion(binary, 'example.org/tunnel'), 'v1.2.3-abc');
  assert.equal(goModuleVersion(binary, 'example.org/other'), undefined);
});

function chosen(peers?: string, peer: readonly string[] = []): string[] {
  return namesOf(choosePeers({ peers, peer }, () => {}));
}

function namesOf(systems: readonly { readonly name: string }[]): string[] {
  return systems.map(({ name }) => name);
}

function program(name: string, says: string): void {
  const file = join(dir, name);
  writeFileSync(file, `#!/bin/sh\necho '${says}'\n`);
  chmodSync(file, 0o755);
}
