/** How a host learns how it is seen over UDP, from reflectors behind NATs of all kinds. */
import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { judgeView } from '../../agent/doctor/network-checks.ts';
import { askReflector, type UdpView } from '../../agent/shell/reflection.ts';
import { ReflectionWatch } from '../../agent/shell/reflection-watch.ts';
import { infoReplyTo } from '../../mapserver/core/lisp/info-reply.ts';
import type { IpAddress } from '../../proto/address.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { INFO_REQUEST } from '../../proto/lisp/info-request.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import { createLog } from '../../runtime/log.ts';

const LOOPBACK = '127.0.0.1' as IpAddress;
const PUBLIC = '203.0.113.7' as IpAddress;
const TIMING = { everyMs: 10, limitMs: 60_000 };
const SHORT = { everyMs: 10, limitMs: 100 };

interface Reflecting {
  readonly port: number;
  asked: number;
}

/** One port of a reflector. `as`: from where it says that the question came; `skip`: how many get lost. */
async function reflecting(
  t: TestContext,
  as: (port: number) => { readonly address: IpAddress; readonly port: number } | null,
  { skip = 0, before = () => {} }: { skip?: number; before?: (socket: Socket, port: number) => void } = {},
): Promise<Reflecting> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.after(() => socket.close());
  const state = { port: socket.address().port, asked: 0 };
  socket.on('message', (bytes, { port }) => {
    state.asked += 1;
    const message = decodeLispMessage(bytes);
    const seen = as(port);
    before(socket, port);
    if (state.asked <= skip || seen === null || message.type !== 'info-request') return;
    socket.send(encodeLispMessage(infoReplyTo(message, seen)), port, '127.0.0.1');
  });
  return state;
}

const mapped = (port: number) => () => ({ address: PUBLIC, port });
const plain = (port: number) => ({ address: LOOPBACK, port });

test('without a NAT, the address is its own', async (t) => {
  const ports = [(await reflecting(t, plain)).port, (await reflecting(t, plain)).port];
  const view = await askReflector(LOOPBACK, ports, TIMING);
  assert.deepEqual([view?.address, view?.nat], [LOOPBACK, 'none']);
});

test('a NAT with one port for all destinations, and one with another for each', async (t) => {
  const [one, same, other] = [
    await reflecting(t, mapped(6_000)),
    await reflecting(t, mapped(6_000)),
    await reflecting(t, mapped(6_001)),
  ];
  assert.deepEqual(await askReflector(LOOPBACK, [one.port, same.port], TIMING), {
    address: PUBLIC,
    port: 6_000,
    nat: 'independent',
  });
  const dependent = await askReflector(LOOPBACK, [one.port, other.port], TIMING);
  assert.deepEqual([dependent?.address, dependent?.nat], [PUBLIC, 'dependent']);
});

test('a question that gets lost is asked again', async (t) => {
  const lossy = await reflecting(t, plain, { skip: 3 });
  const view = await askReflector(LOOPBACK, [lossy.port, (await reflecting(t, plain)).port], TIMING);
  assert.equal(view?.nat, 'none');
  assert.ok(lossy.asked >= 4);
});

test('of two ports only one answers, or none, or nobody is there', async (t) => {
  const answers = await reflecting(t, mapped(6_000));
  const silent = await reflecting(t, () => null);
  assert.equal((await askReflector(LOOPBACK, [answers.port, silent.port], SHORT))?.nat, 'unknown');
  assert.equal(await askReflector(LOOPBACK, [silent.port], SHORT), null);
  assert.equal(await askReflector(LOOPBACK, [], TIMING), null);
});

test('what is no answer to its own question is not believed', async (t) => {
  const forged = await reflecting(t, mapped(6_000), {
    before: (socket, port) => {
      const request = { ...INFO_REQUEST, nonce: nonce(1n) };
      const reply = infoReplyTo(request, { address: '192.0.2.66' as IpAddress, port });
      socket.send(encodeLispMessage(reply), port, '127.0.0.1');
      socket.send('garbage', port, '127.0.0.1');
    },
  });
  assert.equal((await askReflector(LOOPBACK, [forged.port], TIMING))?.address, PUBLIC);
});

test('doctor: each kind of NAT, and UDP that does not come back, with what to do', () => {
  const judge = (nat: UdpView['nat']) => judgeView({ address: PUBLIC, port: 1, nat }, 'ms UDP 4343, 4344');
  assert.equal(judge('none').level, 'ok');
  assert.match(judge('independent').found, /behind a NAT, seen from 203\.0\.113\.7/);
  assert.equal(judge('dependent').level, 'warn');
  assert.match(judge('dependent').advice ?? '', /locators/);
  assert.match(judge('unknown').found, /only one port answers \(ms UDP 4343, 4344\)/);
  const lost = judgeView(null, 'ms UDP 4343, 4344');
  assert.equal(lost.level, 'fail');
  assert.match(lost.advice ?? '', /firewall/);
});

test('an agent asks in each session, and an answer about the place before does not count', async () => {
  const answers: ((view: UdpView | null) => void)[] = [];
  const views: UdpView[] = [];
  const watch = new ReflectionWatch(
    (view) => views.push(view),
    createLog('agent', 'silent'),
    () => new Promise((resolve) => answers.push(resolve)),
  );
  assert.deepEqual(watch.state, { passes: null, view: null });
  const [here, there] = [mapped(1)(), mapped(2)()].map((seen): UdpView => ({ ...seen, nat: 'independent' }));
  const asked = [watch.handleSession(LOOPBACK, [1, 2]), watch.handleSession(LOOPBACK, [1, 2])];
  answers[1]?.(there ?? null);
  answers[0]?.(here ?? null);
  await Promise.all(asked);
  assert.deepEqual(watch.state, { passes: true, view: there });
  assert.deepEqual(views, [there]);
  const lost = watch.handleSession(LOOPBACK, [1, 2]);
  answers[2]?.(null);
  await lost;
  assert.deepEqual(watch.state, { passes: false, view: null });
  await watch.handleSession(LOOPBACK, []);
  assert.deepEqual(watch.state, { passes: null, view: null });
});
