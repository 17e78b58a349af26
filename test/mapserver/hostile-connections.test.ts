/** Connections that want to be nothing but a burden: before they are the session of an agent. */
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { waitFor } from '../lab/wait.ts';
import { type TestAgent, TestOverlay } from './overlay.ts';

const overlay = new TestOverlay({
  limits: {
    handshakeSeconds: 3,
    requestSeconds: 3,
    waitingConnections: 12,
    waitingConnectionsPerAddress: 12,
    connectionsPerAddress: 40,
    connectionsPerSecondAndAddress: 1_000,
  },
});
let witness: TestAgent;
const sockets: Socket[] = [];

before(async () => {
  await overlay.start();
  witness = await overlay.agent({ eids: ['10.77.4.1/32'] });
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await waitFor('nobody waits', async () => (await waiting()) === 0);
  const [mapping] = await witness.register(witness.mapping('10.77.4.1'));
  assert.equal(mapping?.generation, 1, 'the session of an honest agent is not disturbed');
});
after(() => overlay.remove());

describe('whoever never becomes a session', () => {
  // Attack: TCP connections that never begin the TLS handshake, and some that stop in the middle of it | 10 | each is
  // closed when its time is over; the session of another agent is not disturbed
  test('attack: TLS handshakes that are never finished', async () => {
    const before = await overlay.limitHits('handshakeSeconds');
    const closed = Array.from({ length: 10 }, (_, i) => untilClosed(tcp(i % 2 === 0 ? '' : HALF_A_CLIENT_HELLO)));
    await Promise.all(closed);
    assert.equal((await overlay.limitHits('handshakeSeconds')) - before, 10);
  });

  // Attack: HTTP headers that come octet by octet, inside TLS | 5 | each is closed when its time is over
  test('attack: HTTP headers octet by octet', async () => {
    await slowly('GET /v1/ca HTTP/1.1\r\nHost: x\r\n', `X-Slow: ${'a'.repeat(10_000)}`);
  });

  // Attack: the body of an enrolment that comes octet by octet | 5 | each is closed when its time is over
  test('attack: the body of an enrolment octet by octet', async () => {
    await slowly('POST /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n', 'a'.repeat(10_000));
  });

  // Attack: WebSocket upgrades whose last header never comes | 5 | each is closed when its time is over
  test('attack: WebSocket upgrades that are never completed', async () => {
    const headers = 'GET /lisp HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n';
    await slowly(headers, `Sec-WebSocket-Key: ${'a'.repeat(10_000)}`);
  });

  // Attack: requests one after the other on a connection that never becomes a session | 1 | closed when its time is over
  test('attack: a connection kept for ever by small requests', async () => {
    const before = await overlay.limitHits('requestSeconds');
    const socket = await tls();
    const closed = untilClosed(socket);
    const ask = (): boolean => socket.write('GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n');
    socket.on('data', ask);
    ask();
    await closed;
    assert.equal((await overlay.limitHits('requestSeconds')) - before, 1);
  });
});

describe('too many connections', () => {
  // Attack: silent TCP connections, more than may wait | 30 at a limit of 12 | no more than 12 wait; those beyond are
  // closed and counted, and the session of another agent is not disturbed
  test('attack: more silent connections from one address than may wait', async () => {
    const before = await overlay.limitHits('waitingConnectionsPerAddress');
    for (let i = 0; i < 30; i++) tcp();
    await waitFor(
      'those beyond are refused',
      async () => (await overlay.limitHits('waitingConnectionsPerAddress')) === before + 18,
    );
    assert.ok((await waiting()) <= 12);
  });

  // Attack: silent TCP connections from several addresses, which together fill the room for those that wait | 30 from
  // 3 addresses at a limit of 12 | the oldest give way: an honest agent connects meanwhile
  test('attack: silent connections that leave no room for others', async () => {
    const before = await overlay.limitHits('waitingConnections');
    for (let i = 0; i < 30; i++) tcp('', `127.0.0.${10 + (i % 3)}`);
    await waitFor('room is made', async () => (await overlay.limitHits('waitingConnections')) >= before + 18);
    assert.ok((await waiting()) <= 12);
    const honest = await overlay.agent({ names: ['honest'] });
    assert.equal((await honest.welcome).type, 'welcome');
    honest.close();
  });
});

describe('one address', () => {
  // Attack: TCP connections as fast as they go, each closed at once | 60 at a limit of 20 | those beyond are closed
  // unread and counted; an agent that has its session keeps it
  test('attack: connections from one address faster than it may', async () => {
    const limited = new TestOverlay({ limits: { connectionsPerSecondAndAddress: 2 } });
    try {
      await limited.start();
      const agent = await limited.agent({ eids: ['10.77.4.2/32'] });
      for (let i = 0; i < 60; i++) await untilClosed(tcp('', '127.0.0.9', limited.port).end());
      assert.ok((await limited.limitHits('connectionsPerSecondAndAddress')) >= 20);
      const [mapping] = await agent.register(agent.mapping('10.77.4.2'));
      assert.equal(mapping?.generation, 1);
    } finally {
      await limited.remove();
    }
  });

  // Attack: connections from one address beyond its number, two of them sessions | 4 at a limit of 3 | the last is
  // refused; an agent from another address connects, and so does one in place of another that has gone
  test('attack: more connections from one address than it may have', async () => {
    const limited = new TestOverlay({ limits: { connectionsPerAddress: 3 } });
    try {
      await limited.start();
      const first = await limited.agent({ names: ['a'] });
      await limited.agent({ names: ['b'] });
      const third = await limited.enrolled({ names: ['c'] });
      const others = (count: number) => async () => (await limited.gauge('connections', 'waiting')) === count;
      await waitFor('the enrolments are over', others(0));
      const filler = tcp('', '127.0.0.1', limited.port);
      await waitFor('the filler is there', others(1));
      await assert.rejects(third.connect());
      assert.equal(await limited.limitHits('connectionsPerAddress'), 1);
      await third.connect({ localAddress: '127.0.0.7' });
      filler.destroy();
      first.close();
      await waitFor('there is room again', () => third.connect().then(() => true));
    } finally {
      await limited.remove();
    }
  });
});

/** A client that sends `start` at once and then `rest` in single octets is closed at its deadline, five times. */
async function slowly(start: string, rest: string): Promise<void> {
  const before = await overlay.limitHits('requestSeconds');
  const one = async (): Promise<void> => {
    const socket = await tls();
    const closed = untilClosed(socket);
    socket.write(start);
    let sent = 0;
    const drip = setInterval(() => socket.write(rest.charAt(sent++)), 20);
    await closed;
    clearInterval(drip);
    assert.ok(sent > 0 && sent < rest.length);
  };
  await Promise.all(Array.from({ length: 5 }, one));
  assert.equal((await overlay.limitHits('requestSeconds')) - before, 5);
}

function waiting(): Promise<number> {
  return overlay.gauge('connections', 'waiting');
}

function tcp(first: string | Buffer = '', localAddress = '127.0.0.1', port = overlay.port): Socket {
  const socket = connect({ port, host: '127.0.0.1', localAddress }, () => {
    if (first.length > 0) socket.write(first);
  });
  socket.on('error', () => {});
  sockets.push(socket);
  return socket;
}

function tls(): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ port: overlay.port, host: '127.0.0.1', rejectUnauthorized: false }, () =>
      resolve(socket),
    );
    socket.on('error', reject);
    sockets.push(socket);
  });
}

function untilClosed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.resume();
    socket.on('error', () => {});
    socket.once('close', () => resolve());
  });
}

/** A TLS record of 512 octets, a handshake message of which only this much comes. */
const HALF_A_CLIENT_HELLO = Buffer.from('1603010200010001fc0303', 'hex');
