/** The map server's list of agents for Prometheus, and what agents say for it. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { exporterNotice } from '../../agent/shell/exporter-notice.ts';
import { parseExporterNotice, type TargetGroup } from '../../mapserver/shell/exporters.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { type EidKey, parseEid } from '../../proto/eid.ts';
import type { ExporterNotice } from '../../proto/exporter.ts';
import { waitFor } from '../lab/wait.ts';
import { type TestAgent, TestOverlay } from '../mapserver/overlay.ts';

const TOKEN = 'a-token-that-is-long-enough-for-anybody';
const PLACE = { platform: 'ec2', region: 'eu-west-1', zone: 'eu-west-1a', instanceId: 'i-0123' };

describe('discovery', () => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-discovery-'));
  const tokenFile = join(folder, 'token');
  const overlay = new TestOverlay({ discoveryTokenFile: tokenFile });

  before(async () => {
    writeFileSync(tokenFile, `${TOKEN}\n`, { mode: 0o600 });
    await overlay.start();
  });
  after(async () => {
    await overlay.remove();
    rmSync(folder, { recursive: true });
  });

  async function agent(notice: Partial<ExporterNotice>): Promise<TestAgent> {
    const joined = await overlay.agent({ eids: ['10.77.0.0/16'] });
    say(joined, notice);
    return joined;
  }

  async function listed(): Promise<readonly TargetGroup[]> {
    const { status, body } = await ask(overlay, `Bearer ${TOKEN}`);
    assert.equal(status, 200);
    return body as readonly TargetGroup[];
  }

  function groupOf(wanted: TestAgent): Promise<TargetGroup> {
    return waitFor('the agent in the list', async () =>
      (await listed()).find(({ labels }) => labels.xtr_id === wanted.xtrId),
    );
  }

  test('an agent is listed with what it said, by its host’s name and not by its address', async () => {
    const vm = await agent({ hostname: 'vm', version: '1.2.3', place: PLACE });
    assert.deepEqual(await groupOf(vm), {
      targets: ['127.0.0.1:9341'],
      labels: {
        instance: 'vm',
        xtr_id: vm.xtrId,
        __meta_stayput_version: '1.2.3',
        __meta_stayput_connected: 'true',
        __meta_stayput_platform: 'ec2',
        __meta_stayput_region: 'eu-west-1',
        __meta_stayput_zone: 'eu-west-1a',
        __meta_stayput_instance_id: 'i-0123',
      },
    });
  });

  test('a change is listed at once, without another session', async () => {
    const vm = await agent({ place: PLACE });
    await groupOf(vm);
    say(vm, { place: { ...PLACE, platform: 'gce', zone: null }, metrics: { address: null, port: 9999 } });
    const group = await waitFor('the change', async () => {
      const now = await groupOf(vm);
      return now.targets[0] === '127.0.0.1:9999' ? now : undefined;
    });
    assert.equal(group.labels.__meta_stayput_platform, 'gce');
    assert.equal(group.labels.__meta_stayput_zone, '');
  });

  test('an agent that is away stays listed, one that was revoked does not', async () => {
    const vm = await agent({});
    await groupOf(vm);
    vm.close();
    await waitFor('the loss', async () => (await groupOf(vm)).labels.__meta_stayput_connected === 'false');
    await overlay.admin('DELETE', `/v1/agents/${vm.xtrId}`);
    assert.ok((await listed()).every(({ labels }) => labels.xtr_id !== vm.xtrId));
  });

  test('an agent that says nothing, or has no metrics that others reach, is not listed', async () => {
    const silent = await overlay.agent({ eids: ['10.77.0.0/16'] });
    const closed = await agent({ metrics: null });
    await groupOf(await agent({}));
    for (const { labels } of await listed()) assert.ok(![silent.xtrId, closed.xtrId].includes(labels.xtr_id as never));
  });

  test('an agent is listed by an EID while it owns it', async () => {
    const vm = await agent({ metrics: { address: parseIpAddress('10.77.0.9'), port: 9341 } });
    await vm.register(vm.mapping('10.77.0.9/32'));
    assert.deepEqual((await groupOf(vm)).targets, ['10.77.0.9:9341']);
    const other = await overlay.agent({ eids: ['10.77.0.0/16'] });
    await other.register(other.mapping('10.77.0.9/32'));
    assert.ok((await listed()).every(({ labels }) => labels.xtr_id !== vm.xtrId));
  });

  // Attack: an agent says that its metrics, and its locator, are at the address of somebody else | 3 | it is not listed: Prometheus asks
  // nobody on its behalf
  test('attack: metrics at foreign addresses', async () => {
    const victim = await agent({});
    await victim.register(victim.mapping('10.77.0.99/32'));
    for (const address of ['10.77.0.99', '169.254.169.254', '192.0.2.80']) {
      const foreign = parseIpAddress(address);
      const liar = await agent({ metrics: { address: foreign, port: 80 } });
      const locators = [{ address: foreign, port: 80, priority: 1, weight: 100 }];
      await liar.register(liar.mapping('10.77.0.66/32', { locators }));
      await groupOf(await agent({}));
      assert.ok((await listed()).every(({ labels }) => labels.xtr_id !== liar.xtrId));
    }
  });

  // Attack: an agent says that its host has the name of another agent's, and that its metrics are at a port of the system | 2 |
  // it is listed under a name of its own, with its xTR-ID; and not at all
  test('attack: metrics in the name of another host', async () => {
    const victim = await agent({ hostname: 'db1' });
    assert.equal((await groupOf(victim)).labels.instance, 'db1');
    const liar = await agent({ hostname: 'db1' });
    assert.equal((await groupOf(liar)).labels.instance, `db1#${liar.xtrId}`);
    assert.equal((await groupOf(victim)).labels.instance, 'db1');
    say(liar, { hostname: 'db1', metrics: { address: null, port: 22 } });
    await waitFor('the agent to go', async () => (await listed()).every(({ labels }) => labels.xtr_id !== liar.xtrId));
  });

  // Attack: texts that are no notice, too long, with line breaks in labels, ports that are none | 6 | the session ends
  // and is counted, nothing is listed
  test('attack: notices that are malformed', async () => {
    const proper = { type: 'exporter', metrics: null, hostname: 'vm', version: '1', place: null };
    const wrong = [
      '{"type":"exporter"',
      JSON.stringify({ ...proper, hostname: 'x'.repeat(3000) }),
      JSON.stringify({ ...proper, hostname: 'a"}\nstayput_up 1' }),
      JSON.stringify({ ...proper, version: 1 }),
      JSON.stringify({ ...proper, metrics: { address: null, port: 0 } }),
      JSON.stringify({ ...proper, metrics: { address: 'localhost', port: 1 } }),
    ];
    for (const text of wrong) {
      const liar = await overlay.agent({ eids: ['10.77.0.0/16'] });
      liar.webSocket?.send(text);
      assert.equal((await liar.untilClosed()).code, 1003);
    }
    assert.ok((await overlay.rejections('text-frame')) >= wrong.length);
  });

  // Attack: the list of agents is asked for without the token, with another one, and with one that is a prefix | 4 | it is
  // refused, counted and in the audit log
  test('attack: discovery without its token', async () => {
    for (const authorization of [undefined, `Bearer ${TOKEN.slice(0, -1)}`, `Bearer ${TOKEN}x`, `Basic ${TOKEN}`]) {
      assert.equal((await ask(overlay, authorization)).status, 401);
    }
    assert.equal(await overlay.rejections('discovery-token'), 4);
  });

  test('another token counts at once; a file that is not safe is not used', async () => {
    const other = 'another-token-that-is-long-enough-too';
    writeFileSync(tokenFile, other);
    assert.equal((await ask(overlay, `Bearer ${TOKEN}`)).status, 401);
    assert.equal((await ask(overlay, `Bearer ${other}`)).status, 200);
    chmodSync(tokenFile, 0o604);
    assert.equal((await ask(overlay, `Bearer ${other}`)).status, 503);
    chmodSync(tokenFile, 0o640);
    writeFileSync(tokenFile, 'short');
    assert.equal((await ask(overlay, 'Bearer short')).status, 503);
    writeFileSync(tokenFile, TOKEN);
  });
});

test('without a token file there is no list', async (t) => {
  const overlay = new TestOverlay();
  t.after(() => overlay.remove());
  await overlay.start();
  assert.equal((await ask(overlay, `Bearer ${TOKEN}`)).status, 404);
});

describe('what an agent says of its metrics', () => {
  const own = (text: string, via: string | null, state: 'live' | 'target' = 'live') =>
    ({ key: text as EidKey, eid: parseEid(text), kind: 'address', state, interface: via }) as const;
  const eids = [own('10.77.0.7/32', 'wl0'), own('10.77.0.9/32', null), own('10.77.0.8/32', null, 'target')];
  const listed = parseIpAddress('198.51.100.7');

  for (const [what, metricsListen, metricsAddress, expected] of [
    ['off', null, 'underlay', null],
    ['loopback', '127.0.0.1:9341', 'underlay', null],
    ['loopback of IPv6, with an address given', '[::1]:9341', listed, null],
    ['a name', 'localhost:9341', 'underlay', null],
    ['all addresses', '0.0.0.0:9341', 'underlay', { address: null, port: 9341 }],
    ['all addresses, by EID: its own that is live', '[::]:9341', 'eid', { address: '10.77.0.9', port: 9341 }],
    ['one address', '192.0.2.7:1234', 'underlay', { address: '192.0.2.7', port: 1234 }],
    ['behind a NAT that the operator knows', '192.168.0.7:1234', listed, { address: '198.51.100.7', port: 1234 }],
  ] as const) {
    test(`listening on ${what}`, () => {
      const { metrics } = exporterNotice({ metricsListen, metricsAddress }, eids, null);
      assert.deepEqual(metrics, expected);
    });
  }

  test('by EID without one of its own: nothing', () => {
    const config = { metricsListen: '0.0.0.0:9341', metricsAddress: 'eid' } as const;
    assert.equal(exporterNotice(config, eids.slice(0, 1), null).metrics, null);
  });

  test('a host and a place of any name are no reason to end the session', () => {
    const config = { metricsListen: null, metricsAddress: 'underlay' } as const;
    const place = { platform: 'cloudstack', region: null, zone: 'Zone 1 (Zürich)', instanceId: 'i'.repeat(512) };
    for (const name of ['bürö 7', '', 'x'.repeat(300)]) {
      const notice = parseExporterNotice(JSON.stringify(exporterNotice(config, [], place, name)));
      assert.equal(notice?.place?.zone, 'Zone_1_(Z_rich)', name);
    }
  });
});

function say(agent: TestAgent, notice: Partial<ExporterNotice>): void {
  const whole: ExporterNotice = {
    type: 'exporter',
    metrics: { address: null, port: 9341 },
    hostname: 'vm',
    version: '0.1.0',
    place: null,
    ...notice,
  };
  agent.webSocket?.send(JSON.stringify(whole));
}

/** As Prometheus asks. */
async function ask(
  overlay: TestOverlay,
  authorization: string | undefined,
): Promise<{ status: number | undefined; body: unknown }> {
  const ca = await overlay.ca();
  return new Promise((resolve, reject) => {
    const outgoing = request({
      host: '127.0.0.1',
      port: overlay.port,
      path: '/v1/prometheus/targets',
      ca,
      agent: false,
      headers: authorization === undefined ? {} : { authorization },
    });
    outgoing.on('error', reject);
    outgoing.on('response', (incoming) => {
      assert.equal(incoming.headers['content-type'], 'application/json');
      let text = '';
      incoming.on('data', (chunk) => {
        text += chunk;
      });
      incoming.on('end', () => resolve({ status: incoming.statusCode, body: JSON.parse(text) as unknown }));
    });
    outgoing.end();
  });
}
