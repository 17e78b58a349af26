/** A data plane and a plain LISP site, with the programs that people use. The test is the agent. Budget: 60 s. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import type { InstanceId } from '../../proto/eid.ts';
import type { Generation } from '../../proto/mapping.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Host, Lab } from '../lab/lab.ts';
import { PlainSite } from '../lab/plain-site.ts';
import { startServer } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { DataPlane } from './data-plane.ts';
import { requireLab } from './require.ts';

requireLab();

const INSTANCE = 7;
const GENERATION = 1 as Generation;
/** N with a nonce, L with status bits. */
const NONCE_AND_STATUS_BITS = 0xc0;
const EIDS = ['10.77.0.1', 'fd77::1'] as const;
const UNDERLAYS = [
  { outer: 4, rloc: '192.0.2.1', site: '192.0.2.7', eids: ['10.9.0.7', 'fd99::7'] },
  { outer: 6, rloc: '2001:db8::1', site: '2001:db8::7', eids: ['10.9.1.7', 'fd99:1::7'] },
] as const;

describe('a data plane and plain LISP sites', () => {
  let lab: Lab;
  let host: Host;
  let remote: Host;
  let dataplane: DataPlane;
  const sites: PlainSite[] = [];

  before(async () => {
    const binary = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'plain' });
    host = await lab.host('host');
    remote = await lab.host('site');
    await lab.cable(host, 'eth0', remote, 'eth0');
    await host.ip(['addr add 192.0.2.1/24 dev eth0', 'addr add 2001:db8::1/64 dev eth0 nodad']);
    await remote.ip(['addr add 192.0.2.7/24 dev eth0', 'addr add 2001:db8::7/64 dev eth0 nodad']);
    dataplane = await DataPlane.start(host, binary, 1);
    for (const eid of EIDS) {
      const local = {
        prefix: parseIpPrefix(eid),
        generation: GENERATION,
        interface: null,
        redirectFrom: null,
      } as const;
      dataplane.tell({ type: 'local-eid-set', ...local });
      await startServer(host, eid);
    }
    for (const { rloc, site, eids, outer } of UNDERLAYS) {
      const flags = outer === 4 ? NONCE_AND_STATUS_BITS : 0;
      // One EID of the overlay behind each site, as the other one has the same route.
      const routes = [outer === 4 ? '10.77.0.1/32' : 'fd77::1/128'];
      const started = await PlainSite.start(remote, { instance: INSTANCE, rloc: site, eids, routes, flags });
      for (const eid of EIDS) started.map(eid.includes(':') ? `${eid}/128` : `${eid}/32`, rloc);
      sites.push(started);
      for (const eid of eids) await startServer(remote, eid);
    }
  });
  after(async () => {
    dataplane?.close();
    await lab?.close();
  });

  const counter = async (name: string) => (await dataplane.done()).counters[name] ?? 0;
  const ping = async (from: Host, source: string, to: string, ...more: string[]) =>
    await from.exec(['ping', '-I', source, '-c', '2', '-i', '0.2', '-W', '2', ...more, to], { anyExit: true });
  const allowSites = () => {
    const rlocs = UNDERLAYS.map(({ site }) => parseIpPrefix(site));
    const eids = ['10.9.0.0/16', 'fd99::/24'].map((prefix) => parseIpPrefix(prefix));
    dataplane.tell({ type: 'plain-set', instance: INSTANCE as InstanceId, gateway: false, sites: [{ rlocs, eids }] });
  };
  const mapSites = (generation: number) => {
    for (const { site, eids } of UNDERLAYS) {
      for (const eid of eids) {
        const locators = [{ address: parseIpAddress(site), port: 4341, priority: 1, weight: 100 }];
        const mapping = { prefix: parseIpPrefix(eid), generation: generation as Generation, locators } as const;
        dataplane.tell({ type: 'mapping-set', action: 'plain', ...mapping });
      }
    }
  };

  it('drops plain packets unless it is told otherwise', async () => {
    assert.notEqual((await ping(remote, '10.9.0.7', '10.77.0.1')).code, 0);
    assert.ok((await counter('drop.plaintext')) >= 2);
    assert.equal(await counter('plain_rx_packets'), 0);
  });

  it('asks whose they are before it believes what a plain packet says of its source', async () => {
    allowSites();
    assert.notEqual((await ping(remote, '10.9.0.7', '10.77.0.1')).code, 0);
    const missed = await dataplane.event('miss', ({ reason }) => reason === 'source');
    assert.equal(missed.eid, '10.9.0.7');
    mapSites(1);
    await dataplane.done();
    const { code, stdout } = await ping(remote, '10.9.0.7', '10.77.0.1');
    assert.equal(code, 0, stdout);
  });

  for (const { outer, eids } of UNDERLAYS) {
    const eid = outer === 4 ? EIDS[0] : EIDS[1];
    const far = outer === 4 ? eids[0] : eids[1];
    it(`carries pings and downloads both ways over IPv${outer}`, async () => {
      for (const [from, source, to] of [
        [host, eid, far],
        [remote, far, eid],
      ] as const) {
        const { code, stdout } = await ping(from, source, to);
        assert.equal(code, 0, stdout);
        const url = `http://${to.includes(':') ? `[${to}]` : to}/bytes?size=5000000`;
        const curl = [
          'curl',
          '-sS',
          '--globoff',
          '--interface',
          source,
          '-o',
          '/dev/null',
          '-w',
          '%{size_download}',
          url,
        ];
        assert.equal((await from.exec(curl)).stdout, '5000000');
      }
      assert.ok(await counter('plain_tx_packets'));
    });
  }

  it('carries either family over the other', async () => {
    for (const [at, { rloc, eids }] of UNDERLAYS.entries()) {
      const [source, to] = at === 0 ? [EIDS[1], eids[1]] : [EIDS[0], eids[0]];
      await ping(host, source, to);
      await waitFor('the site hears it', () => sites[at]?.heard(rloc, source) === true);
    }
  });

  it('says who exchanged plain packets with an EID', async () => {
    const { rlocs } = await dataplane.correspondents(parseIpPrefix('10.77.0.1'));
    assert.deepEqual(
      [...(rlocs ?? [])].filter((rloc) => rloc === '192.0.2.7'),
      ['192.0.2.7'],
    );
  });

  it('tells a sender what fits, and fragments what may be fragmented', async () => {
    await host.ip(['link set eth0 mtu 1400']);
    await remote.ip(['link set eth0 mtu 1400', 'link set site192027 mtu 1300']);
    // What is known of the path is looked up again after a while.
    const told = await waitFor('a smaller MTU is told', async () => {
      const { stdout } = await ping(host, '10.77.0.1', '10.9.0.7', '-M', 'do', '-s', '1380');
      return /mtu = ?1364/.test(stdout) ? stdout : undefined;
    });
    assert.match(told, /1364/);
    await host.ip(['route flush cache']);
    const { code, stdout } = await ping(host, '10.77.0.1', '10.9.0.7', '-M', 'dont', '-s', '1390');
    assert.equal(code, 0, stdout);
    await host.ip(['link set eth0 mtu 1500']);
    await remote.ip(['link set eth0 mtu 1500']);
  });

  // Attack: plain packets of an EID whose owner has a tunnel key, from a configured RLOC | 2 | dropped and counted
  it('attack: plain packets of an EID that has a tunnel key', async () => {
    const publicKey = dataplane.publicKey;
    const prefix = parseIpPrefix('10.9.0.7');
    dataplane.tell({ type: 'mapping-set', prefix, generation: 2 as Generation, action: 'forward', publicKey });
    const before = await counter('drop.plain_tunnelled');
    assert.notEqual((await ping(remote, '10.9.0.7', '10.77.0.1')).code, 0);
    assert.ok((await counter('drop.plain_tunnelled')) >= before + 2);
  });

  // Attack: plain packets of another instance | 2 | dropped and counted
  it('attack: plain packets of another instance', async () => {
    const before = await counter('drop.wrong_instance');
    const rlocs = UNDERLAYS.map(({ site }) => parseIpPrefix(site));
    dataplane.tell({ type: 'plain-set', instance: 8 as InstanceId, gateway: false, sites: [{ rlocs, eids: [] }] });
    assert.notEqual((await ping(remote, 'fd99:1::7', 'fd77::1')).code, 0);
    assert.ok((await counter('drop.wrong_instance')) >= before + 2);
  });
});
