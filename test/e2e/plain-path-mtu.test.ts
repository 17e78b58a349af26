/** A router that passes on less than the hosts around it, between a data plane and a plain LISP site. Budget: 60 s. */
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

const EID = '10.77.0.1';
const FAR = '10.9.0.7';
const NARROW = 1300;
/** Beside outer IPv4, UDP and LISP headers. */
const FITS = NARROW - 36;

describe('plain packets on a path with a smaller MTU', () => {
  let lab: Lab;
  let host: Host;
  let remote: Host;
  let dataplane: DataPlane;

  before(async () => {
    const binary = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'plainmtu' });
    host = await lab.host('host');
    const router = await lab.host('router', { router: true });
    remote = await lab.host('site');
    await lab.cable(host, 'eth0', router, 'near');
    await lab.cable(router, 'far', remote, 'eth0');
    await router.ip([
      'addr add 192.0.2.254/24 dev near',
      'addr add 198.51.100.254/24 dev far',
      `link set far mtu ${NARROW}`,
    ]);
    await host.ip(['addr add 192.0.2.1/24 dev eth0', 'route add 198.51.100.0/24 via 192.0.2.254']);
    await remote.ip(['addr add 198.51.100.7/24 dev eth0', 'route add 192.0.2.0/24 via 198.51.100.254']);
    dataplane = await DataPlane.start(host, binary, 1);
    const local = { prefix: parseIpPrefix(EID), generation: 1 as Generation, interface: null, redirectFrom: null };
    dataplane.tell({ type: 'local-eid-set', ...local });
    const rlocs = [parseIpPrefix('198.51.100.7')];
    const eids = [parseIpPrefix('10.9.0.0/16')];
    dataplane.tell({ type: 'plain-set', instance: 7 as InstanceId, gateway: false, sites: [{ rlocs, eids }] });
    dataplane.tell({
      ...{ type: 'mapping-set', action: 'plain', prefix: parseIpPrefix(FAR), generation: 1 as Generation },
      locators: [{ address: parseIpAddress('198.51.100.7'), port: 4341, priority: 1, weight: 100 }],
    });
    await dataplane.done();
    const site = await PlainSite.start(remote, {
      instance: 7,
      rloc: '198.51.100.7',
      eids: [FAR],
      routes: [`${EID}/32`],
    });
    site.map(`${EID}/32`, '192.0.2.1');
    await startServer(host, EID);
  });
  after(async () => {
    dataplane?.close();
    await lab?.close();
  });

  const ping = async (size: number) => {
    const argv = ['ping', '-I', EID, '-M', 'do', '-c', '1', '-W', '1', '-s', `${size}`, FAR];
    return await host.exec(argv, { anyExit: true });
  };
  const counter = async (name: string) => (await dataplane.done()).counters[name] ?? 0;

  it('are told of by the router, which the workload hears of in its turn', async () => {
    assert.equal((await ping(1000)).code, 0);
    await waitFor('what fits is told', async () => {
      const { stdout } = await ping(1380);
      return new RegExp(`mtu = ?${FITS}`).test(stdout);
    });
    // Echo and IP headers take 28 octets.
    assert.equal((await ping(FITS - 28)).code, 0);
    assert.equal(await counter('outer_icmp_too_big'), 1);
  });

  it('let downloads through in full', async () => {
    const curl = ['curl', '-sS', '--interface', FAR, '-o', '/dev/null', '-w', '%{size_download}'];
    assert.equal((await remote.exec([...curl, `http://${EID}/bytes?size=2000000`])).stdout, '2000000');
  });

  // Attack: ICMP "packet too big" of a stranger about a plain packet to an EID that is not there | 1 | ignored; the MTU stays
  it('attack: a forged ICMP about a packet to an EID that is not there', async () => {
    const forge = `
import socket, struct
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
inner = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 1400, 0, 0, 64, 17, 0, socket.inet_aton('${EID}'), socket.inet_aton('10.9.9.9'))
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
for port in range(1024, 65536):
    lisp = bytes([8, 0, 0, 0, 0, 0, 7, 0]) + inner
    udp = struct.pack('!HHHH', port, 4341, 1416, 0)
    outer = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 1436, 0, 0x4000, 64, 17, 0, socket.inet_aton('192.0.2.1'), socket.inet_aton('198.51.100.7'))
    body = outer + udp + lisp
    head = struct.pack('!BBHHH', 3, 4, 0, 0, 600)
    sock.sendto(struct.pack('!BBHHH', 3, 4, checksum(head + body), 0, 600) + body, ('192.0.2.1', 0))
`;
    const before = await counter('outer_icmp_too_big');
    await remote.exec(['/usr/bin/python3', '-c', forge]);
    for (let at = 0; at < 3; at++) await ping(100);
    assert.equal((await ping(FITS - 28)).code, 0);
    assert.equal(await counter('outer_icmp_too_big'), before);
    assert.ok((await counter('outer_icmp_ignored')) > 0, 'it was heard');
  });
});
