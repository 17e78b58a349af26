/** The conformance kit as a LISP router, against a map server and an agent with plain packets. Budget: 120 s. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Verdict } from '../../conform/engine.ts';
import { seal } from '../../conform/lisp/message-code.ts';
import { authenticatedMessage, ip, locator, REGISTER, record, TYPE } from '../../conform/lisp/octets.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { type Agent, Overlay } from '../lab/overlay.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

const MAIN = fileURLToPath(new URL('../../cli/main.js', import.meta.url));
const AGENT_EID = '10.77.0.9';
const SITE_EID = '10.77.50.7';
/** Of the kit, known to no map server but the kit. */
const FOREIGN_EID = '10.9.0.7';
const KEY = { keyId: 0, algorithm: 2, secret: Buffer.from('a secret of the site') };

describe('the conformance kit over a network', () => {
  let lab: Lab;
  let overlay: Overlay;
  let agent: Agent;
  let router: Attachment;
  let secretFile: string;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'lispcf' });
    const internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'], roundTripMs: 1, families: [4] });
    const at = await internet.attach('mapserver', 'c');
    router = await internet.attach('site', 'b');
    const lisp = { listen: [`${at.address4}:4342`], requesters: [`${router.address4}/32`] };
    overlay = await Overlay.start(at, { dataplane, mapServerConfig: { lisp } });
    const plain = [{ rlocs: [router.address4], eids: [`${FOREIGN_EID}/32`] }];
    const mapServers = [{ address: router.address4, resolve: ['10.9.0.0/16'] }];
    agent = await overlay.join(await internet.attach('agent', 'a'), {
      eids: [`${AGENT_EID}/32`],
      config: { lisp: { plain, mapServers } },
    });
    secretFile = join(at.host.dir, 'site.key');
    writeFileSync(secretFile, KEY.secret);
    const within = ['10.77.50.0/24', '198.18.0.0/16', '2001:2::/48'].flatMap((prefix) => ['--within', prefix]);
    await overlay.mapServer.stayput(['site', 'add', 'kit', ...within, '--secret-file', secretFile]);
    await register();
  });
  after(async () => {
    await lab?.close();
  });

  const register = async () => {
    const plain = authenticatedMessage({
      ...KEY,
      type: TYPE.mapRegister,
      flags: REGISTER.P | REGISTER.M | REGISTER.T,
      nonce: BigInt(Date.now()),
      authentication: new Uint8Array(16),
      records: [record(ip(SITE_EID), { ttl: 10, locators: [locator(ip(router.address4))] })],
    });
    const program = `const s = require('node:dgram').createSocket('udp4');
      s.on('message', (m) => { console.log(m[0] >> 4); s.close(); clearTimeout(t); });
      const t = setTimeout(() => s.close(), 3000);
      s.bind({ address: '${router.address4}' }, () =>
        s.send(Buffer.from('${Buffer.from(seal(plain, KEY)).toString('hex')}', 'hex'), 4342, '${overlay.mapServer.url.slice(8, -5)}'));`;
    await waitFor('the site is registered', async () => {
      const { stdout } = await router.host.exec([process.execPath, '-e', program]);
      return stdout.trim() === `${TYPE.mapNotify}`;
    });
  };

  const conform = async (target: string, options: readonly string[]): Promise<string[]> => {
    const command = [process.execPath, MAIN, 'conform', target, '--local', router.address4, '--json', ...options];
    const { checks } = JSON.parse((await router.host.exec(command, { anyExit: true })).stdout) as {
      checks: readonly Verdict[];
    };
    assert.ok(checks.length > 90);
    return checks
      .filter(({ outcome }) => outcome !== 'passed')
      .map(({ id, outcome, seen }) => `${id} ${outcome}: ${seen}`);
  };

  it('the map server passes the full profile', async () => {
    const key = ['--site-key', secretFile, '--key-id', `${KEY.keyId}`];
    const options = [...key, '--rate', '500', '--parallel', '16'];
    assert.deepEqual(await conform(overlay.mapServer.url.slice(8, -5), options), []);
  });

  it('the agent passes the full profile, with the kit as a Map-Resolver that it asks', async () => {
    const options = ['--role', 'xtr', '--eid', AGENT_EID, '--data', FOREIGN_EID, '--map-server-here'];
    assert.deepEqual(await conform(agent.at.address4, options), []);
  });

  it('and all but two checks at a site that its own map server knows', async () => {
    const options = ['--role', 'xtr', '--eid', AGENT_EID, '--data', SITE_EID];
    assert.deepEqual(
      await conform(agent.at.address4, options),
      ['XTR-SMR-003', 'XTR-SMR-004'].map(
        (id) => `${id} not-tried: The target has to ask this machine (--map-server-here).`,
      ),
    );
  });
});
