/** What a target asks is answered beside the checks: it neither outlives them nor holds them up. */
import { strict as assert } from 'node:assert';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { describe, type TestContext, test } from 'node:test';
import { UdpPort } from '../../conform/lisp/udp-port.ts';
import { Pacer } from '../../conform/pacer.ts';
import { waitFor } from '../lab/wait.ts';

const QUESTION = Uint8Array.of(1);
const ANSWER = Uint8Array.of(2);

describe('a port that answers', () => {
  test('sends the answer to the target', async (t) => {
    const { target, port } = await connected(t, new Pacer(1_000));
    port.respond(() => ({ octets: ANSWER, port: target.address().port }));
    target.send(QUESTION, port.port, LOOPBACK);
    const [octets] = (await once(target, 'message')) as [Buffer];
    assert.deepEqual([...octets], [...ANSWER]);
  });

  test('does nothing when it is closed before it is the turn of its answer', async (t) => {
    const pacer = new Pacer(20);
    const { target, port } = await connected(t, pacer);
    await pacer.turn();
    const asked = new Promise<void>((resolve) => {
      port.respond(() => {
        resolve();
        return { octets: ANSWER, port: target.address().port };
      });
    });
    target.send(QUESTION, port.port, LOOPBACK);
    await asked;
    port.close();
    // The turn behind that of the answer, which would be a rejection that nobody handles.
    await pacer.turn();
    assert.equal(pacer.taken, 3);
  });

  test('takes few turns for a target that asks all the time', async (t) => {
    const pacer = new Pacer(5);
    const { target, port } = await connected(t, pacer);
    await pacer.turn();
    port.respond(() => ({ octets: ANSWER, port: target.address().port }));
    for (let at = 0; at < QUESTIONS; at++) target.send(QUESTION, port.port, LOOPBACK);
    await waitFor('all questions', () => port.inbox.length === QUESTIONS);
    assert.ok(pacer.taken < QUESTIONS / 2, `${pacer.taken} turns`);
  });
});

async function connected(t: TestContext, pacer: Pacer): Promise<{ readonly target: Socket; readonly port: UdpPort }> {
  const target = createSocket('udp4');
  t.after(() => target.close());
  target.bind(0, LOOPBACK);
  await once(target, 'listening');
  const at = { address: LOOPBACK, port: target.address().port, family: 4 } as const;
  const port = await UdpPort.open(at, pacer, { address: LOOPBACK });
  t.after(() => port.close());
  return { target, port };
}

const LOOPBACK = '127.0.0.1';
const QUESTIONS = 100;
