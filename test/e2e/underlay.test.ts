/** Underlays that are not the usual one: a path MTU of 1280 behind the first hop, and IPv6 without any IPv4. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { sha256OfBytes } from '../lab/traffic/bytes.ts';
import { sha256OfFile, startServer } from '../lab/traffic.ts';
import { VM_EID, World } from '../lab/world.ts';
import { requireLab } from './require.ts';

requireLab();

const DOWNLOAD = 3_000_000;

describe('an underlay with an MTU of 1280 between the clouds', () => {
  let world: World;

  before(async () => {
    world = await World.build({ name: 'mtu', internet: { mtu: 1280 } });
  });
  after(() => world?.close());

  it('carries a download within 20 s, in both directions', async () => {
    await download(world, VM_EID);
    await upload(world);
  });

  it('carries a ping that has to be fragmented, and tells of the limit when it may not be', async () => {
    const { host } = world.client;
    await host.exec(['ping', '-c2', '-W2', '-s', '3000', '-M', 'dont', VM_EID]);
    const { stdout, stderr, code } = await host.exec(
      ['ping', '-c4', '-i0.2', '-W2', '-s', '1380', '-M', 'do', VM_EID],
      {
        anyExit: true,
      },
    );
    assert.notEqual(code, 0);
    assert.match(stdout + stderr, /Frag(mentation)? needed|message too long/i);
  });
});

describe('an underlay of IPv6 alone', () => {
  let world: World;
  const eid6 = 'fd77::10';

  before(async () => {
    world = await World.build({
      name: 'six',
      internet: { families: [6] },
      vmEids: [`${VM_EID}/32`, `${eid6}/128`],
      clientEids: ['10.77.0.1/32', 'fd77::1/128'],
    });
  });
  after(() => world?.close());

  it('carries EIDs of both families, before and after a roam', async () => {
    for (const address of [VM_EID, eid6]) await download(world, address);
    await world.prepareRoam()();
    for (const address of [VM_EID, eid6]) await download(world, address);
  });

  it('answers AAAA and reaches the VM by it', async () => {
    const name = `vm.${world.overlay.zone}`;
    const { host } = world.client;
    assert.equal((await host.exec(['dig', '+short', '+time=2', name, 'AAAA'])).stdout.trim(), eid6);
    const server = await startServer(world.vm.host, eid6);
    const { stdout } = await host.exec(['curl', '-6', '-sS', '--max-time', '30', `http://${name}/hello`]);
    await server.stop();
    assert.equal(stdout, `hello from ${eid6}\n`);
  });
});

async function download(world: World, address: string): Promise<void> {
  const server = await startServer(world.vm.host, address);
  const file = `${world.client.host.dir}/download`;
  const url = `http://${address.includes(':') ? `[${address}]` : address}/bytes?size=${DOWNLOAD}`;
  await world.client.host.exec(['curl', '-sS', '--max-time', '50', '-o', file, url]);
  await server.stop();
  assert.equal(sha256OfFile(file), sha256OfBytes(DOWNLOAD));
}

/** The other end sends the large segments: the client serves, the VM downloads. */
async function upload(world: World): Promise<void> {
  const server = await startServer(world.client.host, '10.77.0.1');
  const file = `${world.vm.host.dir}/download`;
  await world.vm.host.exec(['curl', '-sS', '--max-time', '50', '-o', file, `http://10.77.0.1/bytes?size=${DOWNLOAD}`]);
  await server.stop();
  assert.equal(sha256OfFile(file), sha256OfBytes(DOWNLOAD));
}
