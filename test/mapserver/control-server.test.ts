/** The TLS port with real agents, and with everything else that may knock on it. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { after, before, beforeEach, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { generateKeys } from '../../agent/shell/identity.ts';
import { certifyAgent, createAuthority } from '../../mapserver/shell/certificate-authority.ts';
import { openOverlay } from '../../mapserver/shell/overlay-files.ts';
import { readSigningRequest } from '../../mapserver/shell/signing-request.ts';
import { parseXtrId } from '../../proto/identity.ts';
import type { Generation } from '../../proto/mapping.ts';
import { ApiError } from '../../runtime/http-api.ts';
import { waitFor } from '../lab/wait.ts';
import { enrolment, TestAgent, TestOverlay } from './overlay.ts';

const overlay = new TestOverlay({ heartbeatMs: 200 });
before(() => overlay.start());
after(() => overlay.remove());

describe('agents', () => {
  test('an EID that moves is pushed to its subscriber and to its previous owner', async () => {
    const grant = { eids: ['10.77.0.5/32'], names: ['db'] };
    const first = await overlay.agent(grant);
    const second = await overlay.agent(grant);
    const client = await overlay.agent({ eids: ['10.77.0.9/32'] });
    const negative = await client.subscribe('10.77.0.5');
    assert.equal(negative.type, 'map-reply');
    const [agentMapping, mapping] = await first.register(first.mapping('agent'), first.mapping('10.77.0.5'));
    assert.equal(agentMapping?.generation, 1);
    assert.equal(mapping?.generation, 1);
    assert.equal((await client.push())[0]?.owner, first.xtrId);
    await second.register(second.mapping('agent'));
    const [taken, previous] = await second.register(second.mapping('10.77.0.5'));
    assert.equal(taken?.generation, 2);
    assert.equal(previous?.tunnelKey, first.keys.tunnelKey);
    for (const informed of [first, client]) {
      const [pushed, companion] = await informed.push();
      assert.equal(pushed?.owner, second.xtrId);
      assert.equal(pushed?.generation, 2);
      assert.equal(companion?.tunnelKey, second.keys.tunnelKey);
    }
  });

  test('the first frame is a welcome that says where the agent was seen', async () => {
    const agent = await overlay.agent({ names: ['w'] });
    const welcome = await agent.welcome;
    assert.equal(welcome.type, 'welcome');
    assert.deepEqual(welcome.overlay, ['10.77.0.0/16']);
    assert.equal(welcome.observed.address, '127.0.0.1');
    assert.ok(welcome.observed.port > 0);
  });

  test('what was acknowledged is there after a restart, and a stale owner is told', async () => {
    const grant = { eids: ['10.77.1.1/32'] };
    const [a, b] = [await overlay.agent(grant), await overlay.agent(grant)];
    await a.register(a.mapping('10.77.1.1'));
    await b.register(b.mapping('10.77.1.1'));
    await overlay.stop();
    await overlay.start();
    await a.connect();
    const [told] = await a.register(a.mapping('10.77.1.1', { generation: 1 as Generation }));
    assert.equal(told?.owner, b.xtrId);
    assert.equal(told?.generation, 2);
    await b.connect();
    const [kept] = await b.register(b.mapping('10.77.1.1', { generation: 2 as Generation }));
    assert.equal(kept?.generation, 2);
    a.close();
    b.close();
  });

  test('a second session of the same agent closes the first with 4001', async () => {
    const agent = await overlay.agent({ names: ['x'] });
    const first = agent.webSocket!;
    const closed = new Promise<number>((resolve) => first.once('close', (code) => resolve(code)));
    await agent.connect();
    assert.equal(await closed, 4001);
  });

  // Attack: the revoked agent's next connection with its valid certificate | 1 | disconnected, and not admitted again
  test('attack: a revoked agent comes back', async () => {
    const agent = await overlay.agent({ eids: ['10.77.2.1/32'] });
    const client = await overlay.agent({ names: ['r'] });
    await agent.register(agent.mapping('10.77.2.1'));
    await client.subscribe('10.77.2.1');
    await overlay.admin('DELETE', `/v1/agents/${agent.xtrId.slice(0, 10)}`);
    assert.equal((await agent.untilClosed()).code, 4003);
    assert.equal((await client.push())[0]?.ttl, 0);
    await assert.rejects(agent.connect(), /403: This agent was revoked/);
  });

  test('an agent that falls silent is given up after three heartbeats', async () => {
    const agent = await overlay.agent({ names: ['s'] });
    const counted = await rejections('silent-peer');
    // Nothing is read any more, so no ping is answered.
    agent.webSocket!.pause();
    await waitFor('the count of rejections', async () => (await rejections('silent-peer')) > counted);
    const { agents } = await overlay.admin<{ agents: { xtrId: string; state: string }[] }>('GET', '/v1/agents');
    assert.equal(agents.find(({ xtrId }) => xtrId === agent.xtrId)?.state, 'gone');
    agent.close();
  });
});

describe('joining', () => {
  test('the answer has the certificate, the CA and what was asked for', async () => {
    const token = await overlay.token({ eids: ['10.77.3.0/24'], names: ['*.web'] });
    const keys = generateKeys();
    const answer = await overlay.enrol(enrolment(token, keys, { eids: ['10.77.3.7/32'], names: ['a.web'] }));
    assert.match(answer.certificate, /BEGIN CERTIFICATE/);
    assert.equal(answer.ca, await overlay.ca());
    assert.equal(Buffer.from(answer.presharedKey, 'base64').length, 32);
    assert.deepEqual(answer.eids, ['10.77.3.7/32']);
    assert.deepEqual(answer.names, ['a.web']);
  });

  // Attack: tokens that are malformed, changed, spent or revoked; wishes beyond the token; a CSR, key or EID that is
  // broken or of somebody else | 14 | each refused with its status; nobody is enrolled
  test('attack: enrolments over HTTPS that are wrong in one thing', async () => {
    const token = await overlay.token({ eids: ['10.77.3.7/32'] });
    const keys = generateKeys();
    await refused(401, enrolment(`${token.slice(0, -6)}AAAAAA`, keys));
    await refused(401, enrolment('stp1.e30', keys));
    await refused(401, enrolment('nonsense', keys));
    await refused(403, enrolment(token, keys, { eids: ['10.77.3.8/32'] }));
    await refused(403, enrolment(token, keys, { names: ['db'] }));
    await refused(400, enrolment(token, keys, { csr: 'nonsense' }));
    await refused(400, enrolment(token, keys, { tunnelKey: 'AAAA' }));
    await refused(400, enrolment(token, keys, { eids: ['10.77.3.7/24'] }));
    const { csr } = enrolment(token, generateKeys()) as { csr: string };
    await refused(400, enrolment(token, keys, { csr: flipped(csr) }));
    await overlay.enrol(enrolment(token, keys));
    await refused(401, enrolment(token, generateKeys()));
    await refused(409, enrolment(token, keys, { csr }));
    await refused(409, enrolment(await overlay.token({ names: ['n'] }), keys));
    const { tokens } = await overlay.admin<{ tokens: { id: string; state: string }[] }>('GET', '/v1/tokens');
    const valid = await overlay.token({ names: ['n'] });
    const after = await overlay.admin<{ tokens: { id: string }[] }>('GET', '/v1/tokens');
    const made = after.tokens.find(({ id }) => !tokens.some((known) => known.id === id));
    await overlay.admin('DELETE', `/v1/tokens/${made?.id}`);
    await refused(401, enrolment(valid, generateKeys()));
  });

  // Attack: `GET /v1/agents` on the TLS port | 1 | 404
  test('attack: the management API over the network', async () => {
    const response = await rawHttps('GET /v1/agents HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    assert.match(response, /^HTTP\/1\.1 404/);
  });
});

describe('strangers', () => {
  let witness: TestAgent;
  beforeEach(async () => {
    witness ??= await overlay.agent({ eids: ['10.77.4.1/32'] });
  });

  /** What happens to others must not be noticed by an agent that is connected. */
  async function undisturbed(): Promise<void> {
    const [mapping] = await witness.register(witness.mapping('10.77.4.1'));
    assert.equal(mapping?.generation, 1);
  }

  // Attack: WebSocket upgrades with no certificate, one of another CA, one of an agent that is not enrolled, an
  // expired one | 4 | 401 or 403; other sessions are not disturbed
  test('attack: client certificates that are missing, expired, foreign or unknown', async () => {
    const agent = await TestAgent.enrol(overlay, await overlay.token({ names: ['y'] }));
    await assert.rejects(agent.connect({ cert: undefined, key: undefined }), /401: .*certificate/);
    const other = createAuthority('other', Date.now());
    const keys = generateKeys();
    const { csr } = enrolment('', keys) as { csr: string };
    const foreign = certifyAgent(other, readSigningRequest(csr), agent.xtrId, Date.now());
    await assert.rejects(agent.connect({ cert: foreign, key: keys.tlsPrivateKey }), /401: .*certificate/);
    const { authority } = openOverlay(overlay.dataDir, Date.now());
    const nobody = certifyAgent(authority, readSigningRequest(csr), parseXtrId('ab'.repeat(16)), Date.now());
    await assert.rejects(agent.connect({ cert: nobody, key: keys.tlsPrivateKey }), /403: .*not enrolled/);
    const expired = certifyAgent(authority, readSigningRequest(csr), agent.xtrId, Date.now() - 40 * 86_400_000);
    await assert.rejects(
      agent.connect({ cert: expired, key: keys.tlsPrivateKey }),
      /401: The certificate of this agent ended/,
    );
    await undisturbed();
  });

  test('an incompatible capability gets 426 and is told whom to upgrade', async () => {
    const agent = await TestAgent.enrol(overlay, await overlay.token({ names: ['z'] }));
    await assert.rejects(agent.connect({ headers: { 'stayput-capability': '9' } }), /426: .*upgrade the map server/);
    await assert.rejects(agent.connect({ headers: {} }), /426/);
  });

  // Attack: a text frame, octets that are no message, a message cut off, 70,000 octets | 4 | that session ends and is
  // counted; others are not disturbed
  test('attack: frames that are text, no LISP or too long', async () => {
    for (const [data, code] of [
      ['hello', 1003],
      [Buffer.from('10ffffffff', 'hex'), 1007],
      [Buffer.from('3', 'hex'), 1007],
      [randomBytes(70_000), undefined],
    ] as const) {
      const agent = await overlay.agent({ names: ['t'] });
      agent.webSocket!.send(data);
      const closed = await agent.untilClosed();
      if (code !== undefined) assert.equal(closed.code, code);
    }
    assert.ok((await rejections('text-frame')) >= 1);
    assert.ok((await rejections('message')) >= 2);
    assert.ok((await rejections('frame')) >= 1);
    await undisturbed();
  });

  // Attack: random octets before and after the TLS handshake | 31 | closed and counted; sessions are not disturbed
  test('attack: random octets on the TCP port and inside TLS', async () => {
    const before = await rejections('tls');
    for (let i = 0; i < 20; i++) await rawTcp(randomBytes(1 + i * 100));
    await rawTcp(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
    await waitFor('the count of rejections', async () => (await rejections('tls')) >= before + 20);
    for (let i = 0; i < 10; i++) await rawHttps(`${randomBytes(300).toString('latin1')}\r\n\r\n`);
    assert.ok((await rejections('http')) >= 10);
    await undisturbed();
  });

  // Attack: random octets behind the type of each LISP message | 300 | at most its own session ends; others are not
  // disturbed
  test('attack: random frames from an agent with a certificate', async () => {
    let agent = await overlay.agent({ names: ['f'] });
    for (let i = 0; i < 300; i++) {
      if (agent.closed !== undefined || agent.webSocket!.readyState !== agent.webSocket!.OPEN) {
        await agent.connect();
      }
      const frame = randomBytes(4 + Math.floor(Math.random() * 120));
      frame[0] = ((1 + (i % 8)) << 4) | (frame[0]! & 0x0f);
      await new Promise<void>((resolve) => agent.webSocket!.send(frame, () => resolve()));
    }
    agent.close();
    agent = await overlay.agent({ names: ['f'] });
    await undisturbed();
  });

  // Attack: upgrades to another path and without the subprotocol | 2 | 404 and 400
  test('attack: WebSocket upgrades elsewhere or without the subprotocol', async () => {
    const upgrade = (path: string): string =>
      `GET ${path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`;
    assert.match(await rawHttps(upgrade('/other')), /^HTTP\/1\.1 404/);
    assert.match(await rawHttps(upgrade('/lisp')), /^HTTP\/1\.1 400/);
  });
});

async function refused(status: number, body: object): Promise<void> {
  await assert.rejects(overlay.enrol(body), (error: unknown) => {
    assert.ok(error instanceof ApiError);
    assert.equal(error.status, status, `${error.status} ${error.message}`);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

async function rejections(reason: string): Promise<number> {
  const line = new RegExp(`^stayput_mapserver_rejected_total\\{reason="${reason}"\\} (\\d+)$`, 'm');
  return Number(line.exec(await overlay.metrics())?.[1] ?? 0);
}

function rawTcp(octets: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(overlay.port, '127.0.0.1', () => socket.end(octets));
    socket.on('error', () => {});
    socket.on('data', () => {});
    socket.on('close', () => resolve());
  });
}

function rawHttps(text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connectTls({ port: overlay.port, host: '127.0.0.1', rejectUnauthorized: false }, () => {
      socket.write(text, 'latin1');
    });
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
  });
}

/** The same PEM with one bit of its middle changed. */
function flipped(pem: string): string {
  const lines = pem.trim().split('\n');
  const der = Buffer.from(lines.slice(1, -1).join(''), 'base64');
  der[der.length - 4] = der[der.length - 4]! ^ 1;
  return `${lines[0]}\n${der.toString('base64')}\n${lines.at(-1)}\n`;
}
