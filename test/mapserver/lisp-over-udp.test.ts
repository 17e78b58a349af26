/** A router of a site and an agent at one map server, over real sockets. */
import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { verifyAuthentication } from '../../proto/lisp/authentication.ts';
import { decodeLispMessage } from '../../proto/lisp/message.ts';
import { waitFor } from '../lab/wait.ts';
import { CoreWorld } from './core-world.ts';
import { type TestAgent, TestOverlay } from './overlay.ts';
import { base64, recordsText, SECRET, SiteXtr } from './site-world.ts';

const overlay = new TestOverlay({ lisp: { listen: ['127.0.0.1:0'] } });
/** Makes the messages only. */
const xtr = new SiteXtr(new CoreWorld(), '192.0.2.1');
let router: Socket;
let agent: TestAgent;

before(async () => {
  await overlay.start();
  const prefixes = [{ prefix: '10.77.9.0/24', moreSpecifics: true }];
  await overlay.admin('POST', '/v1/sites', { name: 'paris', prefixes, keys: [{ keyId: 0, secret: base64(SECRET) }] });
  agent = await overlay.agent({});
  router = createSocket('udp4');
  router.bind(0, '127.0.0.1');
  await once(router, 'listening');
});
after(async () => {
  router.close();
  await overlay.remove();
});

test('what the router registers is acknowledged, and pushed to the agent that follows it', async () => {
  await agent.subscribe('10.77.9.5');
  const bytes = await ask(xtr.signed('10.77.9.5'));
  const answer = decodeLispMessage(bytes);
  assert.ok(answer.type === 'map-notify' && verifyAuthentication(bytes, Buffer.from(SECRET)).ok);
  assert.deepEqual(recordsText(answer), ['10.77.9.5/32 = 192.0.2.1']);
  const [pushed] = await agent.push();
  assert.deepEqual([pushed?.locators[0]?.address, pushed?.tunnelKey], ['192.0.2.1', undefined]);
});

test('the site is shown with what it registered and without its secret', async () => {
  const site = await overlay.admin<object>('GET', '/v1/sites/paris');
  const text = JSON.stringify(site);
  assert.match(text, /"eid":"10\.77\.9\.5\/32","state":"live","generation":1/);
  assert.ok(!text.includes(base64(SECRET)));
  const lines = (await overlay.metrics()).split('\n');
  assert.ok(lines.includes('stayput_mapserver_lisp_received_total{message="map-register",result="accepted"} 1'));
});

test('a message that is not authentic leaves a line in the audit log, and no answer', async () => {
  const stranger = new SiteXtr(new CoreWorld(), '192.0.2.1', 2);
  stranger.signing = { ...stranger.signing, psk: Buffer.from('guessed') };
  await send(stranger.signed('10.77.9.5'));
  const lines = await waitFor('the audit log has it', () => {
    const found = readFileSync(join(overlay.dataDir, 'audit.log'), 'utf8')
      .split('\n')
      .filter((line) => line.includes('authentication-failed'));
    return found.length > 0 ? found : undefined;
  });
  const { who, from, what, result } = JSON.parse(lines[0] ?? '{}');
  assert.deepEqual(
    { who, from, what, result },
    { who: 'unknown', from: '127.0.0.1', what: { message: 'map-register' }, result: 'authentication' },
  );
});

async function send(bytes: Uint8Array): Promise<void> {
  const [host = '', port = ''] = overlay.lispAddress.split(':');
  await new Promise<void>((resolve) => router.send(bytes, Number(port), host, () => resolve()));
}

async function ask(bytes: Uint8Array): Promise<Buffer> {
  const answered = once(router, 'message');
  await send(bytes);
  const [answer] = (await answered) as [Buffer];
  return answer;
}
