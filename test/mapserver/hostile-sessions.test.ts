/** Agents with a certificate that use their session to burden the map server. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { mappingsOf } from '../../proto/lisp/native.ts';
import { waitFor } from '../lab/wait.ts';
import { type TestAgent, TestOverlay } from './overlay.ts';

const overlay = new TestOverlay({
  heartbeatMs: 300,
  limits: {
    messagesPerSecond: 100,
    registrationsPerSecond: 255,
    octetsPerSecond: 200_000,
    messageSeconds: 2,
    bufferedOctets: 100_000,
    subscriptionsPerAgent: 3,
    mappingsPerAgent: 3,
  },
});
let witness: TestAgent;

before(async () => {
  await overlay.start();
  witness = await overlay.agent({ eids: ['10.77.4.1/32'] });
});
afterEach(async () => {
  const [mapping] = await witness.register(witness.mapping('10.77.4.1'));
  assert.equal(mapping?.generation, 1, 'the session of an honest agent is not disturbed');
});
after(() => overlay.remove());

test('a policy larger than what may wait for an agent reaches it whole when it connects', async () => {
  const small = new TestOverlay({ limits: { bufferedOctets: 1_000 } });
  try {
    await small.start();
    const members = Array.from({ length: 500 }, (_, i) => `10.77.${i >> 8}.${i & 255}`).join(', ');
    const rules = Array.from({ length: 100 }, (_, i) => `allow from @many to 10.77.9.1 tcp ${i + 1}`);
    const text = [`group many = ${members}`, ...rules].join('\n');
    await small.admin('POST', '/v1/policy', { text, ifVersion: 0 });
    const agent = await small.agent({ eids: ['10.77.9.1/32'] });
    assert.equal((await agent.policy()).rules.length, 100);
    const [mapping] = await agent.register(agent.mapping('10.77.9.1'));
    assert.equal(mapping?.generation, 1, 'and its session goes on');
    assert.equal(await small.rejections('slow-peer'), 0);
  } finally {
    await small.remove();
  }
});

describe('too much', () => {
  // Attack: Map-Requests as fast as they go | 600 at a limit of 100 a second | all are answered, the later ones no faster
  // than allowed; another agent is answered meanwhile
  test('attack: a flood of messages from an agent', async () => {
    const hostile = await overlay.agent({ names: ['a'] });
    const started = performance.now();
    const answers = Array.from({ length: 600 }, () => hostile.subscribe('10.77.4.9'));
    await witness.register(witness.mapping('10.77.4.1'));
    await Promise.all(answers);
    const took = performance.now() - started;
    assert.ok(took > 800, `${took} ms`);
    assert.ok((await overlay.limitHits('messagesPerSecond')) >= 1, 'counted');
    hostile.close();
  });

  // Attack: the same flood over a new session each time | 3 sessions of 150 messages at a limit of 100 a second | a new
  // session brings no new allowance
  test('attack: a flood of messages over ever new sessions', async () => {
    const hostile = await overlay.enrolled({ names: ['b'] });
    const started = performance.now();
    for (let i = 0; i < 3; i++) {
      await hostile.connect();
      await Promise.all(Array.from({ length: 150 }, () => hostile.subscribe('10.77.4.9')));
      hostile.close();
      await hostile.untilClosed();
    }
    assert.ok(performance.now() - started > 1_000);
  });

  // Attack: Map-Registers with many EID-records each | 4 with 200 records at a limit of 255 a second | answered no faster
  // than allowed, and counted
  test('attack: a flood of EID-records in few messages', async () => {
    const hostile = await overlay.agent({ eids: ['10.77.5.0/24'] });
    const mappings = Array.from({ length: 200 }, (_, i) => hostile.mapping(`10.77.5.${i}`));
    const started = performance.now();
    for (let i = 0; i < 4; i++) await hostile.register(...mappings);
    assert.ok(performance.now() - started > 1_000);
    assert.ok((await overlay.limitHits('registrationsPerSecond')) >= 1);
    assert.ok((await overlay.limitHits('mappingsPerAgent')) >= 197);
    hostile.close();
  });

  // Attack: Map-Registers with as many octets as fit | 20 of 15,000 octets at a limit of 65,536 octets a second | answered
  // no faster than allowed, and counted
  test('attack: more octets than an agent may send', async () => {
    const narrow = new TestOverlay({ limits: { octetsPerSecond: 65_536 } });
    try {
      await narrow.start();
      const hostile = await narrow.agent({ eids: ['10.77.5.0/24'] });
      const mappings = Array.from({ length: 200 }, (_, i) => hostile.mapping(`10.77.5.${i}`));
      const started = performance.now();
      for (let i = 0; i < 20; i++) await hostile.register(...mappings);
      assert.ok(performance.now() - started > 1_500);
      assert.ok((await narrow.limitHits('octetsPerSecond')) >= 1);
    } finally {
      await narrow.remove();
    }
  });

  // Attack: subscriptions to more EIDs than an agent may follow | 5 at a limit of 3 | those beyond are answered, not kept,
  // and counted
  test('attack: subscriptions of a session beyond the limit', async () => {
    const hostile = await overlay.agent({ names: ['d'] });
    for (let i = 0; i < 5; i++) await hostile.subscribe(`10.77.6.${i}`);
    assert.equal(await overlay.limitHits('subscriptionsPerAgent'), 2);
    hostile.close();
  });

  // Attack: pings without a pause, of which no answer is read | 2000 at a limit of 50 a second | disconnected and counted
  test('attack: a flood of pings', async () => {
    const hostile = await overlay.agent({ names: ['e'] });
    for (let i = 0; i < 2000; i++) hostile.webSocket!.ping(randomBytes(100));
    await hostile.untilClosed();
    assert.equal(await overlay.limitHits('controlFramesPerSecond'), 1);
    assert.ok((await overlay.rejections('control-frames')) >= 1);
  });

  // Attack: pongs that nobody asked for | 2000 at a limit of 50 a second | disconnected and counted
  test('attack: a flood of pongs', async () => {
    const hostile = await overlay.agent({ names: ['f'] });
    for (let i = 0; i < 2000; i++) hostile.webSocket!.pong();
    await hostile.untilClosed();
    assert.ok((await overlay.rejections('control-frames')) >= 2);
  });
});

describe('frames that are not what they should be', () => {
  // Attack: a message in fragments that never ends, with pongs in between so that the agent does not seem silent | 1 |
  // disconnected when the time for a message is over
  test('attack: a message whose end never comes', async () => {
    const hostile = await overlay.agent({ names: ['g'] });
    const { webSocket } = hostile;
    const drip = setInterval(() => {
      if (webSocket!.readyState === WebSocket.OPEN) webSocket!.send(Buffer.of(0), { fin: false });
    }, 200);
    await hostile.untilClosed();
    clearInterval(drip);
    assert.equal(await overlay.limitHits('messageSeconds'), 1);
    assert.equal(await overlay.rejections('unfinished'), 1);
  });

  // Attack: a frame that promises 60,000 octets, which come one by one | 1 | disconnected when the time for a message is
  // over
  test('attack: a frame octet by octet', async () => {
    const hostile = await overlay.agent({ names: ['h'] });
    const socket = tcpOf(hostile);
    socket.write(Buffer.from('82feea6000000000', 'hex'));
    const drip = setInterval(() => socket.write(Buffer.of(0)), 100);
    await hostile.untilClosed();
    clearInterval(drip);
    assert.ok((await overlay.rejections('unfinished')) >= 1);
  });

  // Attack: a message in a thousand fragments of one octet | 1 | disconnected at the 65th
  test('attack: a message of tiny fragments', async () => {
    await closedFor('frame', (hostile) => {
      for (let i = 0; i < 1000; i++) hostile.webSocket!.send(Buffer.of(0), { fin: false });
    });
  });

  // Attack: frames that promise 65,537 octets, 1 GiB, and more than a number can be | 3 | disconnected before anything of
  // it has come
  test('attack: frames that promise too much', async () => {
    for (const header of [
      '82ff000000000001000100000000',
      '82ff000000004000000000000000',
      '82ffffffffffffffffff00000000',
    ])
      await closedFor('frame', (hostile) => tcpOf(hostile).write(Buffer.from(header, 'hex')));
  });

  // Attack: an upgrade that offers compression, and then frames that are marked as compressed | 2 | compression is not
  // agreed on; the session ends at the first such frame
  test('attack: compressed frames', async () => {
    const hostile = await overlay.enrolled({ names: ['i'] });
    await hostile.connect({ perMessageDeflate: true });
    assert.equal(hostile.webSocket!.extensions, '');
    hostile.close();
    await closedFor('frame', (agent) => tcpOf(agent).write(Buffer.from('c28100000000aa', 'hex')));
  });

  // Attack: frames without a mask, with reserved bits and reserved opcodes, and control frames in fragments | 5 | each
  // ends its session
  test('attack: frames against RFC 6455', async () => {
    for (const frame of ['8201aa', 'a28100000000aa', '838100000000aa', '8b8100000000aa', '098100000000aa'])
      await closedFor('frame', (agent) => tcpOf(agent).write(Buffer.from(frame, 'hex')));
  });
});

describe('a peer that does not read', () => {
  // Attack: a session whose agent has vanished without a word | 1 | disconnected after three heartbeats
  test('attack: a session that is left half open', async () => {
    const before = await overlay.rejections('silent-peer');
    const hostile = await overlay.agent({ names: ['j'] });
    tcpOf(hostile).pause();
    await waitFor('it is given up', async () => (await overlay.rejections('silent-peer')) > before);
    hostile.close();
  });

  // Attack: a subscriber that asks without pause and reads nothing | until disconnected | disconnected as soon as
  // more waits for it than may; when it comes back and subscribes, it has the newest state
  test('attack: a subscriber that does not read', async () => {
    const greedy = new TestOverlay({
      limits: { bufferedOctets: 20_000, octetsPerSecond: 10_000_000, messagesPerSecond: 1_000_000 },
    });
    let ask: ReturnType<typeof setInterval> | undefined;
    try {
      await greedy.start();
      const grant = { eids: ['10.77.7.1/32'] };
      const owner = await greedy.agent(grant);
      const other = await greedy.agent(grant);
      await owner.register(owner.mapping('agent'), owner.mapping('10.77.7.1'));
      const subscriber = await greedy.agent({ names: ['k'] });
      await subscriber.subscribe('10.77.7.1');
      tcpOf(subscriber).pause();
      ask = setInterval(() => {
        // Both ends are in this process: what is not sent yet must not keep it from everything else.
        if ((subscriber.webSocket?.bufferedAmount ?? 0) > 100_000) return;
        for (let i = 0; i < 1000; i++) void subscriber.subscribe('10.77.7.1').catch(() => {});
      }, 20);
      await waitFor('it is disconnected', async () => (await greedy.limitHits('bufferedOctets')) === 1);
      clearInterval(ask);
      assert.ok((await greedy.rejections('slow-peer')) === 1);
      subscriber.close();
      const [taken] = await other.register(other.mapping('10.77.7.1'));
      assert.equal(taken?.generation, 2);
      await subscriber.connect();
      const answer = await subscriber.subscribe('10.77.7.1');
      assert.ok(answer.type === 'map-notify');
      assert.equal(mappingsOf(answer)[0]?.owner, other.xtrId);
    } finally {
      clearInterval(ask);
      await greedy.remove();
    }
  });
});

/** Another agent is disconnected, for that reason, by what `misbehave` sends. */
async function closedFor(reason: string, misbehave: (hostile: TestAgent) => void): Promise<void> {
  const before = await overlay.rejections(reason);
  const hostile = await overlay.agent({ names: ['z'] });
  misbehave(hostile);
  await hostile.untilClosed();
  assert.equal(await overlay.rejections(reason), before + 1);
}

/** The connection below the WebSocket. */
function tcpOf({ webSocket }: TestAgent): Socket {
  return (webSocket as unknown as { _socket: Socket })._socket;
}
