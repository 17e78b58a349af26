/** `stayput doctor dns` on a host of a whole overlay, with its data plane. Budget: 30 s. */
import assert from 'node:assert/strict';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { Overlay } from '../lab/overlay.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

test('on a host that asks its agent, the overlay is found end to end, and what cannot be forwarded is said', async (t) => {
  const dataplane = await ensureDataplaneBuilt(() => {});
  const lab = await Lab.create({ name: 'doctor' });
  t.after(() => lab.close());
  const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
  const overlay = await Overlay.start(await internet.attach('mapserver', 'a'), { dataplane });
  const at = await internet.attach('vm', 'a');
  const agent = await overlay.join(at, { eids: ['10.77.0.5/32'], names: ['vm'], dns: true });
  at.host.nameservers(['127.0.0.1']);

  const status = await agent.host.exec(['curl', '-s', '--unix-socket', agent.socket, 'http://agent/v1/dns']);
  const { addresses, reverseZones, listen } = JSON.parse(status.stdout) as Record<string, string[]>;
  assert.deepEqual(listen, ['127.0.0.1:53']);
  assert.deepEqual(reverseZones, ['77.10.in-addr.arpa', '0.0.0.0.0.0.0.0.7.7.d.f.ip6.arpa']);
  const tunnel = await agent.host.exec(['ip', '-o', 'address', 'show', 'dev', 'stayput0']);
  for (const address of addresses ?? []) assert.ok(tunnel.stdout.includes(` ${address}/`), address);
  assert.equal(addresses?.length, 2, 'its own and the EID');
  assert.ok(!('stayput0' in networkInterfaces()), 'and not on the machine that runs the lab');

  const diagnosis = await waitFor('a lookup by name', async () => {
    const { stdout } = await agent.stayput(['doctor', 'dns'], { anyExit: true });
    return /overlay name +and so do programs/.test(stdout) && stdout;
  });
  assert.match(diagnosis, /^ok {4}agent +127\.0\.0\.1 answers for stayput\.internal/m);
  assert.match(diagnosis, /^ok {4}overlay name +vm\.stayput\.internal is 10\.77\.0\.5, says the agent/m);
  assert.match(diagnosis, /^ok {4}reverse name +10\.77\.0\.5 is vm\.stayput\.internal, says the agent\n.*and so do/m);
  assert.match(diagnosis, /^fail {2}upstream +the agent knows no resolver/m);
});
