/** The reflector: what it answers, what it does not, and that it is of no use to those who forge their source. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { askReflector } from '../../agent/shell/reflection.ts';
import { Reflector } from '../../mapserver/core/reflector.ts';
import { ReflectorListener } from '../../mapserver/shell/reflector-listener.ts';
import type { IpAddress } from '../../proto/address.ts';
import { NO_ADDRESS } from '../../proto/lisp/afi.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { INFO_REQUEST, type InfoRequest } from '../../proto/lisp/info-request.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import { callApi } from '../../runtime/http-api.ts';
import { TestOverlay } from './overlay.ts';

const FROM = { address: '198.51.100.7' as IpAddress, port: 40_000 };
const FROM6 = { address: '2001:db8::7' as IpAddress, port: 40_000 };
const REQUEST: InfoRequest = {
  ...INFO_REQUEST,
  nonce: nonce(7n),
  sender: { kind: 'name', name: 'stayput'.padEnd(64, '.') },
};

describe('the reflector', () => {
  for (const from of [FROM, FROM6]) {
    test(`says that a question came from ${from.address}, in no more octets`, () => {
      const question = encodeLispMessage(REQUEST);
      const { result, answer } = new Reflector().handleDatagram(from, question, 0);
      assert.equal(result, 'answered');
      assert.ok(answer !== null && answer.length <= question.length);
      const reply = decodeLispMessage(answer);
      assert.ok(reply.type === 'info-reply');
      assert.equal(reply.nonce, REQUEST.nonce);
      assert.deepEqual([reply.nat.globalEtr, reply.nat.etrPort], [{ kind: 'ip', address: from.address }, from.port]);
    });
  }

  test('does not answer a short question, another message, one with authentication, or garbage', () => {
    const reflector = new Reflector();
    const authentication = { keyId: 1, algorithm: 2, data: new Uint8Array(32) };
    const reply = new Reflector().handleDatagram(FROM, encodeLispMessage(REQUEST), 0).answer ?? new Uint8Array();
    for (const [bytes, result] of [
      [encodeLispMessage({ ...REQUEST, sender: NO_ADDRESS }), 'short'],
      [encodeLispMessage({ ...REQUEST, authentication }), 'unexpected'],
      [reply, 'unexpected'],
      [new Uint8Array(), 'unexpected'],
      [new Uint8Array(100).fill(0x70), 'unexpected'],
      [new Uint8Array(4_096).fill(0x70), 'unexpected'],
    ] as const) {
      assert.deepEqual(reflector.handleDatagram(FROM, bytes, 0), { result, answer: null });
    }
  });

  // Attack: Info-Requests with the address of a victim | 10,000 at once | 60 answers, none longer than its question, then 20 a second
  test('attack: questions to the reflector with a forged source', () => {
    const reflector = new Reflector();
    const question = encodeLispMessage(REQUEST);
    const answered = (now: number): number => {
      let count = 0;
      for (let i = 0; i < 10_000; i++) {
        if (reflector.handleDatagram({ ...FROM, port: 1 + i }, question, now).answer !== null) count++;
      }
      return count;
    };
    assert.equal(answered(0), 60);
    assert.equal(answered(1_000), 20);
    assert.equal(reflector.handleDatagram(FROM6, question, 1_000).result, 'answered');
  });
});

describe('a map server', () => {
  test('tells everybody where its reflector is, which answers at two ports', async (t) => {
    const overlay = new TestOverlay({ reflectorListen: ['127.0.0.1:0', '127.0.0.1:0'] });
    t.after(() => overlay.stop());
    await overlay.start();
    const answer = await callApi({ host: '127.0.0.1', port: overlay.port }, 'GET', '/v1/ca');
    const { reflector } = answer as { reflector: number[] };
    assert.equal(reflector.length, 2);
    const view = await askReflector('127.0.0.1' as IpAddress, reflector);
    assert.deepEqual([view?.address, view?.nat], ['127.0.0.1', 'none']);
    const metrics = await overlay.metrics();
    assert.match(metrics, /^stayput_mapserver_reflector_requests_total\{result="answered"\} 2$/m);
  });

  test('does not take the ports that it is to serve something else at', async (t) => {
    const free = createSocket('udp4');
    free.bind(0, '127.0.0.1');
    await once(free, 'listening');
    const { port } = free.address();
    free.close();
    await once(free, 'close');
    const [control, lisp] = [`127.0.0.1:${port - 1}`, `127.0.0.1:${port}`];
    const options = { listen: null, control: [control], count: () => {}, log: pino({ level: 'silent' }) };
    const reflector = await ReflectorListener.start({ ...options, others: [lisp] });
    t.after(() => reflector.close());
    assert.equal(reflector.addresses.includes(lisp), false);
  });

  test('starts, and says so, where other programs have both ports that it would take unasked', async (t) => {
    const port = await portBeforeTaken(t);
    const lines: string[] = [];
    const log = pino({ level: 'warn' }, { write: (line) => lines.push(line) });
    const control = [`127.0.0.1:${port}`];
    await ReflectorListener.start({ listen: null, control, others: [], count: () => {}, log });
    assert.equal(lines.length, 2);
    for (const [at, line] of lines.entries()) {
      const { msg, address, err } = JSON.parse(line) as { msg: string; address: string; err: { message: string } };
      assert.deepEqual([msg, address], ['no reflector at this address', `127.0.0.1:${port + at + 1}`]);
      assert.match(err.message, /cannot be served on .* \(EADDRINUSE\)/);
    }
    const overlay = new TestOverlay({ listen: control[0] });
    t.after(() => overlay.stop());
    await overlay.start();
    const answer = await callApi({ host: '127.0.0.1', port }, 'GET', '/v1/ca');
    assert.deepEqual((answer as { reflector: number[] }).reflector, []);
  });

  test('runs without one where another program has its ports, unless it is asked for', async (t) => {
    const taken = createSocket('udp4');
    taken.bind(0, '127.0.0.1');
    await once(taken, 'listening');
    t.after(() => taken.close());
    const { port } = taken.address();
    const asked = new TestOverlay({ reflectorListen: [`127.0.0.1:${port}`] });
    t.after(() => asked.stop());
    await assert.rejects(asked.start(), {
      message: `the reflector (reflectorListen) cannot be served on 127.0.0.1:${port} (EADDRINUSE)`,
    });
    const none = new TestOverlay({ reflectorListen: [] });
    t.after(() => none.stop());
    await none.start();
    const answer = await callApi({ host: '127.0.0.1', port: none.port }, 'GET', '/v1/ca');
    assert.deepEqual((answer as { reflector: number[] }).reflector, []);
  });
});

/** A port of TCP that is free, while the two ports of UDP after it are not. */
async function portBeforeTaken(t: TestContext): Promise<number> {
  for (;;) {
    const first = createSocket('udp4');
    const second = createSocket('udp4');
    const control = createServer();
    const close = () => Promise.all([first, second].map((socket) => socket.close()));
    try {
      await Promise.all([once(first, 'listening'), first.bind(0, '127.0.0.1')]);
      const { port } = first.address();
      await Promise.all([once(second, 'listening'), second.bind(port + 1, '127.0.0.1')]);
      await Promise.all([once(control, 'listening'), control.listen(port - 1, '127.0.0.1')]);
      control.close();
      await once(control, 'close');
      t.after(close);
      return port - 1;
    } catch {
      await close();
    }
  }
}
