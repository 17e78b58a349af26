/** The systemd units in deploy/ give the daemons no more than docs/security.md says. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { AGENT_CONFIG } from '../agent/config.ts';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { temporaryFolder } from './runtime/temporary-folder.ts';

const VERSION = '252';
const analysed = /systemd (\d+)/.exec(analyse(['--version']))?.[1];
// Another version judges by another table.
const skip = analysed === VERSION ? false : `no systemd-analyze ${VERSION}`;

test('the exposure of each unit is what security.md states', { skip }, () => {
  const page = readFileSync(join(PROJECT_ROOT, 'docs/security.md'), 'utf8');
  for (const unit of ['mapserver', 'agent', 'agent-join', 'dns-host', 'dataplane', 'sleep'].map(
    (name) => `stayput-${name}.service`,
  )) {
    const report = analyse(['security', '--offline=true', '--no-pager', `deploy/systemd/${unit}`]);
    const exposure = /Overall exposure level for .*: ([\d.]+) (?:OK|SAFE)/.exec(report)?.[1];
    assert.ok(page.includes(`| \`${unit}\` | ${exposure} |`), `${unit}: ${exposure}`);
  }
});

test('the data plane may confine itself further', {
  skip: analysed === undefined ? 'no systemd-analyze' : false,
}, () => {
  const unit = readFileSync(join(PROJECT_ROOT, 'deploy/systemd/stayput-dataplane.service'), 'utf8');
  const allowed = new Set<string>();
  for (const [, refused, calls = ''] of unit.matchAll(/^SystemCallFilter=(~?)(.*)$/gm)) {
    for (const call of calls.split(' ').flatMap(systemCalls)) {
      if (refused === '~') allowed.delete(call);
      else allowed.add(call);
    }
  }
  for (const call of ['landlock_create_ruleset', 'landlock_add_rule', 'landlock_restrict_self', 'seccomp', 'prctl'])
    assert.ok(allowed.has(call), call);
});

test('the socket unit holds what the agent listens on if nothing else is said, over UDP and TCP', () => {
  const unit = readFileSync(join(PROJECT_ROOT, 'deploy/systemd/stayput-agent-dns.socket'), 'utf8');
  const { dns } = AGENT_CONFIG.parse({});
  for (const kind of ['ListenDatagram', 'ListenStream']) {
    const addresses = [...unit.matchAll(new RegExp(`^${kind}=(.*)$`, 'gm'))].map((match) => match[1]);
    assert.deepEqual(addresses, dns.listen);
  }
});

test('the unit around a sleep is enabled with the agent, and cannot keep the machine awake', () => {
  const [agent, sleep] = ['agent', 'sleep'].map((name) =>
    readFileSync(join(PROJECT_ROOT, `deploy/systemd/stayput-${name}.service`), 'utf8'),
  );
  assert.match(agent ?? '', /^Also=stayput-sleep\.service$/m);
  for (const line of ['ExecStart=-stayput agent sleep', 'ExecStop=-stayput agent wake', 'TimeoutStartSec=5s'])
    assert.ok(sleep?.split('\n').includes(line), line);
});

test('no unit writes core dumps', () => {
  for (const name of ['mapserver', 'agent', 'agent-join', 'dns-host', 'dataplane', 'sleep'])
    assert.match(readFileSync(join(PROJECT_ROOT, `deploy/systemd/stayput-${name}.service`), 'utf8'), /^LimitCORE=0$/m);
});

test('the token of a join file does not survive the join, also when the power was cut', (t) => {
  const root = temporaryFolder(t);
  const [etc, state] = [join(root, 'etc'), join(root, 'state')];
  for (const folder of [etc, state]) mkdirSync(folder);
  const [file, identity] = [join(etc, 'join.json'), join(state, 'identity.json')];
  const run = (unit: string, key: string): void => {
    const text = readFileSync(join(PROJECT_ROOT, `deploy/systemd/${unit}`), 'utf8');
    const command = new RegExp(`^${key}=-\\+/bin/sh -c '(.*join\\.json.*)'$`, 'm').exec(text)?.[1] ?? assert.fail(unit);
    const here = command.replaceAll('/etc/stayput', etc).replaceAll('/var/lib/stayput/agent', state);
    assert.equal(spawnSync('/bin/sh', ['-c', here]).status, 0);
  };
  writeFileSync(file, 'token');
  run('stayput-agent-join.service', 'ExecStopPost');
  assert.ok(existsSync(file), 'it has not joined');
  writeFileSync(identity, '{}');
  run('stayput-agent-join.service', 'ExecStopPost');
  assert.equal(existsSync(file), false);
  writeFileSync(file, 'token');
  run('stayput-agent.service', 'ExecStartPre');
  assert.equal(existsSync(file), false, 'one that the power cut has left');
  run('stayput-agent.service', 'ExecStartPre');
});

/** A group, such as `@file-system`, as what is in it. */
function systemCalls(name: string): string[] {
  if (!name.startsWith('@')) return [name];
  const lines = analyse(['syscall-filter', '--no-pager', name]).split('\n').slice(1);
  const members = lines.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
  return members.flatMap(systemCalls);
}

function analyse(args: readonly string[]): string {
  return spawnSync('systemd-analyze', args, { cwd: PROJECT_ROOT, encoding: 'utf8' }).stdout ?? '';
}
