/**
 * An agent at Map-Servers of others: it registers with a site's key at two of them and at one that nobody runs, finds a
 * site there that its own map server knows nothing of, and leaves the site's RLOC when that dies. Budget: 90 s.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseIpAddress } from '../../proto/address.ts';
import { parseEid } from '../../proto/eid.ts';
import { ipLispAddress } from '../../proto/lisp/afi.ts';
import { signMessage } from '../../proto/lisp/authentication.ts';
import { NO_AUTHENTICATION } from '../../proto/lisp/authentication-data.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { MAP_REGISTER } from '../../proto/lisp/map-register.ts';
import { eidToRecordKey } from '../../proto/lisp/mapping-record.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import { type Agent, Overlay } from '../lab/overlay.ts';
import { PlainSite } from '../lab/plain-site.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

const RESPONDER = fileURLToPath(new URL('../lab/probe-responder.js', import.meta.url));
const OWN_EID = '10.77.0.9';
const SITE_EID = '10.9.0.7';
const SECRETS = ['the secret of our site at the first', 'the secret of our site at the second'] as const;
const SITE_SECRET = 'the secret of the other site';
const SHA256 = 2;
/** Longer than the longest pause between two tries. */
const PATIENT = { timeoutMs: 90_000, intervalMs: 250 };

describe('an agent at Map-Servers of others', () => {
  let lab: Lab;
  let agent: Agent;
  const foreign: { readonly overlay: Overlay; readonly at: Attachment }[] = [];
  const routers: { readonly at: Attachment; readonly site: PlainSite; readonly responder: LabProcess }[] = [];

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'lispel' });
    const internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'], roundTripMs: 1, families: [4] });
    for (const [n, cloud] of ['b', 'c'].entries()) {
      const at = await internet.attach(`foreign${n}`, cloud);
      const mapServerConfig = { lisp: { listen: [`${at.address4}:4342`] } };
      const overlay = await Overlay.start(at, { dataplane, prefixes: [`10.${88 + n}.0.0/16`], mapServerConfig });
      foreign.push({ overlay, at });
      // The second does not have the agent's key yet.
      await addSite(n, 'ours', '10.77.0.0/24', n === 0 ? SECRETS[0] : 'a former secret');
    }
    await addSite(0, 'other', '10.9.0.0/16', SITE_SECRET);
    for (const n of [0, 1]) {
      const at = await internet.attach(`router${n}`, 'b');
      const rloc = at.address4;
      const site = await PlainSite.start(at.host, { instance: 0, rloc, eids: [SITE_EID], routes: ['10.77.0.0/24'] });
      const responder = at.host.spawn('responder', [process.execPath, RESPONDER, rloc]);
      await responder.waitUntil('it answers probes', () => responder.output().includes('ready'));
      routers.push({ at, site, responder });
    }
    const at = await internet.attach('agent', 'a');
    const mapServers = [...foreign.map((each) => each.at.address4), '203.0.113.99'].map((address, n) => {
      const keyFile = join(at.host.dir, `key${n}`);
      writeFileSync(keyFile, SECRETS[n] ?? 'of a Map-Server that is not there');
      return { address, keyFile, eids: ['10.77.0.0/24'], resolve: n === 0 ? ['10.9.0.0/16'] : [] };
    });
    const plain = [{ rlocs: routers.map((each) => each.at.address4), eids: ['10.9.0.0/16'] }];
    const probes = { intervalSeconds: 1, timeoutMs: 300, tries: 3 };
    const own = await Overlay.start(await internet.attach('mapserver', 'c'), { dataplane });
    agent = await own.join(at, { eids: [`${OWN_EID}/32`], config: { lisp: { plain, probes, mapServers } } });
    for (const { site } of routers) site.map(`${OWN_EID}/32`, agent.at.address4);
  });
  after(async () => {
    await lab?.close();
  });

  const keyFileAt = (n: number, secret: string): string => {
    const file = join(lab.dir, `secret-${n}-${secret.length}`);
    writeFileSync(file, secret);
    return file;
  };
  const addSite = async (n: number, name: string, within: string, secret: string) => {
    const options = ['--within', within, '--secret-file', keyFileAt(n, secret)];
    await foreign[n]?.overlay.mapServer.stayput(['site', 'add', name, ...options]);
  };
  /** EIDs that the site has registered there. */
  const registered = async (n: number, name: string): Promise<string> =>
    (await foreign[n]?.overlay.mapServer.stayput(['site', 'show', name]))?.stdout ?? '';
  const metric = async (name: string) => (await agent.metrics()).get(name) ?? 0;
  const answers = async () => {
    const { code } = await agent.host.exec(['ping', '-I', OWN_EID, '-c', '1', '-W', '1', SITE_EID], { anyExit: true });
    return code === 0;
  };

  it('registers with the key of its site, and is told so', async () => {
    await waitFor('the first acknowledges', async () => {
      return (await metric('stayput_agent_lisp_registrations_total{result="accepted"}')) >= 1;
    });
    assert.ok((await registered(0, 'ours')).includes(`${OWN_EID}/32`));
  });

  it('goes on to try where its key is not known and where nobody is, which holds up nothing', async () => {
    const server = foreign[1]?.overlay.mapServer ?? assert.fail();
    await waitFor('the second refuses a message that is not authentic', async () => {
      const refused = 'stayput_mapserver_lisp_received_total{message="map-register",result="authentication"}';
      return ((await server.metrics()).get(refused) ?? 0) >= 2;
    });
    assert.ok(!(await registered(1, 'ours')).includes(`${OWN_EID}/32`));
    await server.stayput(['site', 'key', 'rm', 'ours', '0']);
    await server.stayput(['site', 'key', 'add', 'ours', '--key-id', '0', '--secret-file', keyFileAt(1, SECRETS[1])]);
    await waitFor(
      'a repetition is accepted',
      async () => (await registered(1, 'ours')).includes(`${OWN_EID}/32`),
      PATIENT,
    );
    await waitFor(
      'the third is said not to answer',
      async () => {
        return (await metric('stayput_agent_lisp_registrations_total{result="unanswered"}')) >= 1;
      },
      PATIENT,
    );
  });

  it('finds a site that only the Map-Server of others knows', async () => {
    const rlocs = routers.map(({ at }, n) => ({
      ...{ priority: n + 1, weight: 100, multicastPriority: 255, multicastWeight: 0 },
      ...{ local: true, probed: false, reachable: true, locator: ipLispAddress(parseIpAddress(at.address4)) },
    }));
    const record = { ttl: 10, action: 0, authoritative: true, mapVersion: 0, locators: rlocs };
    const register = {
      ...MAP_REGISTER,
      ...{ useTtl: true, nonce: nonce(BigInt(Date.now())), authentication: NO_AUTHENTICATION },
      records: [{ ...eidToRecordKey(parseEid(`${SITE_EID}/32`)), ...record }],
    };
    const signed = signMessage(register, { keyId: 0, algorithm: SHA256, psk: Buffer.from(SITE_SECRET) });
    const program = `const s = require('node:dgram').createSocket('udp4');
      s.on('message', (m) => { console.log(m[0] >> 4); s.close(); clearTimeout(t); });
      const t = setTimeout(() => s.close(), 30_000);
      s.send(Buffer.from('${Buffer.from(signed).toString('hex')}', 'hex'), 4342, '${foreign[0]?.at.address4}');`;
    const told = await routers[0]?.at.host.exec([process.execPath, '-e', program]);
    assert.equal(told?.stdout.trim(), '4', 'a Map-Notify');
    await waitFor('the site answers', answers);
    assert.equal(routers[0]?.site.heard(agent.at.address4, OWN_EID), true);
    assert.equal(routers[1]?.site.heard(agent.at.address4, OWN_EID), false, 'the other has a larger priority');
  });

  it('leaves an RLOC that answers no probes any more for the next by priority', async () => {
    const states = async () =>
      JSON.parse((await agent.stayput(['peers', '--sites', '--json'])).stdout) as { rloc: string; state: string }[];
    await waitFor('both are known to answer', async () => {
      const list = await states();
      return list.length === 2 && list.every(({ state }) => state === 'up');
    });
    const [first, second] = routers;
    assert.ok(first !== undefined && second !== undefined);
    await first.responder.kill9();
    await first.site.process.kill9();
    await waitFor('the site answers again, at its other RLOC', answers, PATIENT);
    assert.equal(second.site.heard(agent.at.address4, OWN_EID), true);
    const expected = [`${first.at.address4} down`, `${second.at.address4} up`].sort();
    // A probe of the second may have been late just now.
    await waitFor('one is known to be down and the other to be up', async () => {
      const now = (await states()).map(({ rloc, state }) => `${rloc} ${state}`).sort();
      return now.join() === expected.join();
    });
  });
});
