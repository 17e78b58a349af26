/** Initiations from made-up addresses, as many as a small machine can send, against a host that has work to do. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ensureFloodBuilt, startFlood } from '../lab/flood.ts';
import type { Attachment } from '../lab/internet.ts';
import { waitForIncrease } from '../lab/overlay.ts';
import { startServer, Traffic } from '../lab/traffic.ts';
import { VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const RATE = 50_000;
/** Longer than the story takes on any machine; it is stopped before. */
const SECONDS = 120;
const MORE_MEMORY_MB = 16;

describe('a flood', () => {
  let world: World;
  let attacker: Attachment;
  let program: string;

  before(async () => {
    program = await ensureFloodBuilt(() => {});
    world = await World.build({ name: 'flood', internet: { families: [4] } });
    attacker = await world.internet.attach('attacker', 'a');
    await startServer(world.vm.host, VM_EID);
  });
  after(() => world?.close());

  // Attack: initiations with a right first MAC, every second one with a made-up cookie, each from another made-up
  // address, at a host with a download, a TCP connection and datagrams | up to 50,000 a second until the story ends |
  // the traffic goes on, a host that joins meanwhile reaches the flooded one, and that takes at most 16 MB more
  it('attack: a flood of initiations from made-up addresses', async () => {
    const { vm } = world;
    const { tunnelKey } = JSON.parse((await vm.stayput(['status', '--json'], { anyExit: true })).stdout) as {
      tunnelKey: string;
    };
    const memory = vm.dataplane.rssMb();
    const counted = await vm.metrics();
    const traffic = await Traffic.start(world.client.host, {
      address: VM_EID,
      url: `http://${VM_EID}`,
      downloadBytes: 2_000_000,
      downloadRate: 400_000,
      datagramsPerSecond: 100,
    });
    const target = { address: vm.at.address4, port: 4341, key: tunnelKey };
    const flooding = startFlood(program, attacker.host, { ...target, rate: RATE, seconds: SECONDS });
    await waitForIncrease('cookies demanded', () => vm.metrics(), counted, /cookies_sent_total/, 100);
    const newcomer = await world.overlay.join(await world.internet.attach('newcomer', 'b'), {
      eids: ['10.77.0.60/32'],
    });
    await newcomer.stayput(['ping', VM_EID, '-c', '1']);
    const result = await traffic.finish();
    assert.equal(flooding.running, true, 'all of this happened under the flood');
    await flooding.stop('SIGKILL');
    assert.equal(result.sha256Match, true);
    assert.equal(result.tcpAlive, true);
    assert.equal(result.tcpResets, 0);
    const grown = vm.dataplane.rssMb() - memory;
    assert.ok(grown <= MORE_MEMORY_MB, `${grown} MB more`);
    await waitForIncrease('the rest turned away', () => vm.metrics(), counted, /handshakes_rejected_total/, 1000);
    await world.client.stayput(['ping', VM_EID, '-c', '1']);
  });
});
