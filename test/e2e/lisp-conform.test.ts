/** The conformance kit as a LISP router that exchanges plain packets with an agent. Budget: 90 s. */
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
const KEY = { keyId: 0, algorithm: 2, secret: Buffer.from('a secret of the site') };

describe('the conformance kit and an agent with plain packets', () => {
  let lab: Lab;
  let overlay: Overlay;
  let agent: Agent;
  let router: Attachment;

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'lispcf' });
    const internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'], roundTripMs: 1, families: [4] });
    const at = await internet.attach('mapserver', 'c');
    const lisp = { listen: [`${at.address4}:4342`] };
    overlay = await Overlay.start(at, { dataplane, mapServerConfig: { lisp } });
    router = await internet.attach('site', 'b');
    const plain = [{ rlocs: [router.address4], eids: [] }];
    agent = await overlay.join(await internet.attach('agent', 'a'), {
      eids: [`${AGENT_EID}/32`],
      config: { lisp: { plain } },
    });
    const secret = join(at.host.dir, 'site.key');
    writeFileSync(secret, KEY.secret);
    await overlay.mapServer.stayput(['site', 'add', 'kit', '--within', '10.77.50.0/24', '--secret-file', secret]);
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

  it('passes all that does not need the agent to ask the kit for mappings', async () => {
    const command = [process.execPath, MAIN, 'conform', agent.at.address4, '--role', 'xtr', '--json'];
    const options = ['--eid', AGENT_EID, '--data', SITE_EID, '--local', router.address4];
    const { stdout } = await router.host.exec([...command, ...options], { anyExit: true });
    const { checks } = JSON.parse(stdout) as { checks: readonly Verdict[] };
    assert.ok(checks.length > 90, stdout);
    assert.deepEqual(
      checks.filter(({ outcome }) => outcome !== 'passed').map(({ id, outcome, seen }) => `${id} ${outcome}: ${seen}`),
      ['XTR-SMR-003', 'XTR-SMR-004'].map(
        (id) => `${id} not-tried: The target has to ask this machine (--map-server-here).`,
      ),
    );
  });
});
