/** The systemd units in deploy/ give the daemons no more than docs/security.md says. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { AGENT_CONFIG } from '../agent/config.ts';
import { PROJECT_ROOT } from '../runtime/project-root.ts';

const VERSION = '252';
const analysed = /systemd (\d+)/.exec(analyse(['--version']))?.[1];
// Another version judges by another table.
const skip = analysed === VERSION ? false : `no systemd-analyze ${VERSION}`;

test('the exposure of each unit is what security.md states', { skip }, () => {
  const page = readFileSync(join(PROJECT_ROOT, 'docs/security.md'), 'utf8');
  for (const unit of ['mapserver', 'agent', 'agent-join', 'dataplane'].map((name) => `stayput-${name}.service`)) {
    const report = analyse(['security', '--offline=true', '--no-pager', `deploy/systemd/${unit}`]);
    const exposure = /Overall exposure level for .*: ([\d.]+) OK/.exec(report)?.[1];
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

test('no unit writes core dumps', () => {
  for (const name of ['mapserver', 'agent', 'agent-join', 'dataplane'])
    assert.match(readFileSync(join(PROJECT_ROOT, `deploy/systemd/stayput-${name}.service`), 'utf8'), /^LimitCORE=0$/m);
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
