/**
 * A plain LISP site and an agent that knows nothing of such, joined by a gateway: the site registers and asks over UDP
 * 4342 as routers do, and sends and takes plain packets. Budget: 60 s.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parseIpAddress } from '../../proto/address.ts';
import { parseEid } from '../../proto/eid.ts';
import { ipLispAddress, NO_ADDRESS } from '../../proto/lisp/afi.ts';
import { signMessage } from '../../proto/lisp/authentication.ts';
import { NO_AUTHENTICATION } from '../../proto/lisp/authentication-data.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { MAP_REGISTER, type MapRegister } from '../../proto/lisp/map-register.ts';
import { MAP_REQUEST, type MapRequest } from '../../proto/lisp/map-request.ts';
import { eidToRecordKey } from '../../proto/lisp/mapping-record.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { type Agent, Overlay } from '../lab/overlay.ts';
import { PlainSite } from '../lab/plain-site.ts';
import { startServer } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

const VM_EID = '10.77.0.5';
const SITE_EID = '10.77.50.7';
const SECRET = 'a secret of the site';
const SHA256 = 2;

describe('a plain LISP site behind a gateway', () => {
  let lab: Lab;
  let internet: Internet;
  let overlay: Overlay;
  let gateway: Agent;
  let vm: Agent;
  let router: Attachment;
  let site: PlainSite;
  let lastNonce = 0n;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'lispgw' });
    internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'], roundTripMs: 1, families: [4] });
    const at = await internet.attach('mapserver', 'c');
    const lisp = { listen: [`${at.address4}:4342`] };
    overlay = await Overlay.start(at, { dataplane, mapServerConfig: { lisp } });
    router = await internet.attach('site', 'b');
    const plain = [{ rlocs: [router.address4], eids: [] }];
    gateway = await overlay.join(await internet.attach('gateway', 'c'), {
      eids: ['10.77.0.9/32'],
      config: { lisp: { plain, gateway: true } },
    });
    vm = await overlay.join(await internet.attach('vm', 'a'), { eids: [`${VM_EID}/32`] });
    const config = join(at.host.dir, 'mapserver.json');
    const { stdout } = await gateway.stayput(['status', '--json'], { anyExit: true });
    const gateways = [(JSON.parse(stdout) as { xtrId: string }).xtrId];
    writeFileSync(config, JSON.stringify({ ...JSON.parse(readFileSync(config, 'utf8')), lisp: { ...lisp, gateways } }));
    await overlay.mapServer.daemon.stop();
    overlay.mapServer.daemon.start();
    await overlay.mapServer.ready();
    const secret = join(at.host.dir, 'site.key');
    writeFileSync(secret, SECRET);
    await overlay.mapServer.stayput(['site', 'add', 'paris', '--within', '10.77.50.0/24', '--secret-file', secret]);
    site = await PlainSite.start(router.host, {
      instance: 0,
      rloc: router.address4,
      eids: [SITE_EID],
      routes: ['10.77.0.0/24'],
    });
    await startServer(router.host, SITE_EID);
    await startServer(vm.host, VM_EID);
  });
  after(async () => {
    await lab?.close();
  });

  /** Sends it from the router to UDP 4342 of `to`, and gives back what comes. */
  const exchange = async (to: string, bytes: Uint8Array): Promise<LispMessage> => {
    const program = `const s = require('node:dgram').createSocket('udp4');
      s.on('message', (m) => { console.log(m.toString('hex')); s.close(); clearTimeout(t); });
      const t = setTimeout(() => s.close(), 30_000);
      s.bind({ address: '${router.address4}' }, () => s.send(Buffer.from('${Buffer.from(bytes).toString('hex')}', 'hex'), 4342, '${to}'));`;
    const { stdout } = await router.host.exec([process.execPath, '-e', program]);
    return decodeLispMessage(Buffer.from(stdout.trim(), 'hex'));
  };
  const ask = (eid: string, changes: Partial<MapRequest> = {}): Uint8Array =>
    encodeLispMessage({
      ...MAP_REQUEST,
      nonce: nonce(++lastNonce),
      sourceEid: NO_ADDRESS,
      itrRlocs: [ipLispAddress(parseIpAddress(router.address4))],
      records: [{ notify: false, ...eidToRecordKey(parseEid(`${eid}/32`)) }],
      ...changes,
    });
  const rlocsOf = (message: LispMessage): unknown[] => {
    assert.ok(message.type === 'map-reply', message.type);
    return message.records.flatMap(({ locators }) => locators.map(({ locator: l }) => l.kind === 'ip' && l.address));
  };

  it('registers at the map server with its key, as a router does', async () => {
    const register: MapRegister = {
      ...MAP_REGISTER,
      useTtl: true,
      nonce: nonce(BigInt(Date.now())),
      authentication: NO_AUTHENTICATION,
      records: [
        {
          ttl: 10,
          ...eidToRecordKey(parseEid(`${SITE_EID}/32`)),
          action: 0,
          authoritative: true,
          mapVersion: 0,
          locators: [
            {
              priority: 1,
              weight: 100,
              multicastPriority: 255,
              multicastWeight: 0,
              local: true,
              probed: false,
              reachable: true,
              locator: ipLispAddress(parseIpAddress(router.address4)),
            },
          ],
        },
      ],
    };
    const signed = signMessage(register, { keyId: 0, algorithm: SHA256, psk: Buffer.from(SECRET) });
    const answer = await exchange(overlay.mapServer.url.slice(8, -5), signed);
    assert.equal(answer.type, 'map-notify');
  });

  it('is told that the agent is behind the gateway, which answers its probes', async () => {
    const [rloc] = rlocsOf(await exchange(overlay.mapServer.url.slice(8, -5), ask(VM_EID)));
    assert.equal(rloc, gateway.at.address4);
    const probed = await exchange(gateway.at.address4, ask(VM_EID, { probe: true }));
    assert.deepEqual([probed.type === 'map-reply' && probed.probe, rlocsOf(probed)], [true, [gateway.at.address4]]);
    site.map(`${VM_EID}/32`, gateway.at.address4);
  });

  it('talks to an agent that has no plain packets, both ways', async () => {
    for (const [from, source, to] of [
      [vm.host, VM_EID, SITE_EID],
      [router.host, SITE_EID, VM_EID],
    ] as const) {
      await waitFor(`${to} answers`, async () => {
        const { code } = await from.exec(['ping', '-I', source, '-c', '1', '-W', '2', to], { anyExit: true });
        return code === 0;
      });
      const curl = ['curl', '-sS', '--interface', source, '-o', '/dev/null', '-w', '%{size_download}'];
      assert.equal((await from.exec([...curl, `http://${to}/bytes?size=2000000`])).stdout, '2000000');
    }
    assert.equal(site.heard(gateway.at.address4, VM_EID), true);
    assert.equal(site.heard(vm.at.address4, VM_EID), false);
  });

  it('keeps talking when the agent roams to another cloud', async () => {
    const ping = router.host.spawn('ping', ['ping', '-n', '-i', '0.1', '-I', SITE_EID, VM_EID]);
    const answers = () => ping.output().match(/bytes from/g)?.length ?? 0;
    await ping.waitUntil('answers come', () => answers() > 5);
    await internet.prepareRoam(vm.at, 'b')();
    const before = answers();
    await ping.waitUntil('answers come again', () => answers() > before + 10);
  });
});
