/** pylisp, an implementation of LISP that is not ours: it registers, asks, is asked, and takes our packets. Budget: 60 s. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import { type Agent, Overlay } from '../lab/overlay.ts';
import { missingPylisp, pylispCommand, startLispd } from '../lab/pylisp.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

const AGENT_EID = '10.77.0.9';
const SITE = '10.77.50.0/24';
const SITE_EID = '10.77.50.7';
const SECRET = 'a secret of the site';

/** Asks as pylisp's `map_resolve` does, prints what pylisp makes of the answer: nonce, prefix, action, RLOCs. */
const ASK = `
import os, socket, sys
from ipaddress import ip_address
from pylisp.packet.ip import IPv4Packet, UDPMessage
from pylisp.packet.lisp.control import ControlMessage, EncapsulatedControlMessage, MapRequestMessage
local, server, eid, encapsulated, probe = sys.argv[1:]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
sock.bind((local, 0))
nonce = os.urandom(8)
request = MapRequestMessage(nonce=nonce, probe=probe == 'yes', itr_rlocs=[ip_address(local)], eid_prefixes=[ip_address(eid)])
message = request
if encapsulated == 'yes':
    source = ip_address('0.0.0.0')
    udp = UDPMessage(source_port=sock.getsockname()[1], destination_port=4342, payload=request)
    udp.checksum = udp.calculate_checksum(source=source, destination=ip_address(eid))
    ip = IPv4Packet(ttl=64, protocol=udp.header_type, source=source, destination=ip_address(eid), payload=udp)
    message = EncapsulatedControlMessage(payload=ip)
sock.sendto(bytes(message), (server, 4342))
answer = ControlMessage.from_bytes(sock.recv(4096))
print(type(answer).__name__, answer.nonce == nonce, getattr(answer, 'probe', None))
for record in answer.records:
    print(record.eid_prefix, record.action, record.authoritative, *[locator.address for locator in record.locator_records])
`;

describe('pylisp', { skip: missingPylisp() }, () => {
  let lab: Lab;
  let internet: Internet;
  let overlay: Overlay;
  let agent: Agent;
  let router: Attachment;
  let other: Attachment;
  let lispd: LabProcess;
  let mapServer: string;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'pylisp' });
    internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'], roundTripMs: 1, families: [4] });
    const at = await internet.attach('mapserver', 'c');
    mapServer = at.address4;
    router = await internet.attach('router', 'b');
    other = await internet.attach('other', 'a');
    const lisp = { listen: [`${mapServer}:4342`], requesters: [`${other.address4}/32`] };
    overlay = await Overlay.start(at, { dataplane, mapServerConfig: { lisp } });
    const plain = [{ rlocs: [router.address4, other.address4], eids: [] }];
    agent = await overlay.join(await internet.attach('agent', 'a'), {
      eids: [`${AGENT_EID}/32`],
      config: { lisp: { plain } },
    });
    const secret = join(at.host.dir, 'site.key');
    writeFileSync(secret, SECRET);
    // Its nonces are random.
    await overlay.mapServer.stayput([
      'site',
      'add',
      'py',
      '--prefix',
      SITE,
      '--secret-file',
      secret,
      '--legacy-replay',
    ]);
    await router.host.ip([`addr add ${SITE_EID}/32 dev lo`]);
    lispd = startLispd(router.host, { rloc: router.address4, mapServer, secret: SECRET, prefixes: [SITE] });
  });
  after(async () => {
    await lab?.close();
  });

  /** The lines of `ASK`. */
  const ask = async (server: string, eid: string, options: { encapsulated: boolean; probe: boolean }) => {
    const flags = [options.encapsulated, options.probe].map((flag) => (flag ? 'yes' : 'no'));
    const { stdout } = await other.host.exec(pylispCommand(ASK, other.address4, server, eid, ...flags));
    return stdout.trim().split('\n');
  };

  it('registers its site, and believes our Map-Notify', async () => {
    await lispd.waitUntil('its Map-Register is acknowledged', () =>
      new RegExp(`Received a Map-Notify for .* from Map-Server ${mapServer}`).test(lispd.output()),
    );
    assert.doesNotMatch(lispd.output(), /invalid authentication|wrong nonce|Error in control-plane message/);
  });

  it('is answered what it registered, and what nobody has', async () => {
    const encapsulated = { encapsulated: true, probe: false };
    assert.deepEqual(await ask(mapServer, SITE_EID, encapsulated), [
      'MapReplyMessage True False',
      `${SITE} 0 False ${router.address4}`,
    ]);
    const [head, negative] = await ask(mapServer, '192.0.2.1', encapsulated);
    assert.equal(head, 'MapReplyMessage True False');
    assert.match(negative ?? '', /^(\d+\.){3}\d+\/\d+ 1 False$/);
  });

  it('probes an agent, and the agent an answer understands', async () => {
    assert.deepEqual(await ask(agent.at.address4, AGENT_EID, { encapsulated: false, probe: true }), [
      'MapReplyMessage True True',
      `${AGENT_EID}/32 0 True ${agent.at.address4}`,
    ]);
  });

  it('takes the packets of an agent', async () => {
    const program = `const s = require('node:dgram').createSocket('udp4');
      s.on('message', (m, { address }) => console.log(address + ' ' + m));
      s.bind(7000, '${SITE_EID}', () => console.log('ready'));`;
    const receiver = router.host.spawn('receiver', [process.execPath, '-e', program]);
    await receiver.waitUntil('it listens', () => receiver.output().includes('ready'));
    await waitFor('a packet comes through', async () => {
      await agent.at.host.exec(['bash', '-c', `echo hello >/dev/udp/${SITE_EID}/7000`]);
      return receiver.output().includes(`${AGENT_EID} hello`);
    });
  });
});
