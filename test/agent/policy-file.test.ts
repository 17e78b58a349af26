/** The policy on an agent's disk. */
import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { StateFolder } from '../../agent/shell/identity.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import type { AgentPolicy } from '../../proto/policy.ts';

const path = mkdtempSync(join(tmpdir(), 'stayput-policy-'));
const folder = new StateFolder(path);
after(() => rmSync(path, { recursive: true, force: true }));

test('is none before there was one, and then what was written', () => {
  assert.equal(folder.policy(), null);
  const policy: AgentPolicy = {
    version: 7_000_012,
    default: 'deny',
    rules: [
      {
        action: 'allow',
        source: [parseIpPrefix('10.77.0.0/16'), parseIpPrefix('fd77::/48')],
        destination: [parseIpPrefix('10.77.0.5')],
        protocol: 6,
        ports: [[80, 89]],
      },
    ],
  };
  folder.writePolicy(policy);
  assert.deepEqual(folder.policy(), policy);
});

test('stops the agent when it is damaged, since less than the policy would be enforced', () => {
  for (const text of ['{', '{"version":1}', '{"version":1,"default":"maybe","rules":[]}']) {
    writeFileSync(join(path, 'policy.json'), text);
    assert.throws(() => folder.policy(), {
      code: 'STAYPUT_USAGE',
      message: /policy\.json.*the map server says it again/,
    });
  }
});
