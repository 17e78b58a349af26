import { strict as assert } from 'node:assert';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { pino } from 'pino';
import { DataplaneLink, encodeFrame, FrameReader, parseIncoming } from '../../agent/shell/dataplane-link.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import {
  type DataplaneEvent,
  type ForwardingReply,
  type HelloReply,
  MAX_FRAME,
} from '../../proto/dataplane/messages.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { FakeDataplane } from './fake-dataplane.ts';

const log = pino({ level: 'silent' });

describe('the link to the data plane', () => {
  let folder: string;
  let path: string;
  let dataplane: FakeDataplane;
  let link: DataplaneLink;
  let events: DataplaneEvent[];
  let hellos: HelloReply[];
  let forwarding: ForwardingReply | null;
  let lost: number;
  let changed: () => void;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'stayput-link-'));
    path = join(folder, 'dataplane.sock');
    dataplane = new FakeDataplane();
    await dataplane.listen(path);
    events = [];
    hellos = [];
    forwarding = null;
    lost = 0;
    changed = () => undefined;
    link = new DataplaneLink(
      path,
      'test',
      {
        onHello: (hello, said) => {
          hellos.push(hello);
          forwarding = said;
          changed();
        },
        onEvent: (event) => {
          events.push(event);
          changed();
        },
        onLost: () => {
          lost++;
          changed();
        },
      },
      log,
    );
  });

  afterEach(async () => {
    link.close();
    await dataplane.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const until = (test: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      changed = () => {
        if (test()) resolve();
      };
      changed();
    });

  test('greets, sends commands in order and gets events', async () => {
    link.start();
    await until(() => hellos.length === 1);
    link.send({ type: 'sync-begin' });
    link.send({ type: 'sync-end' });
    await dataplane.until(() => dataplane.commands.length === 3);
    assert.deepEqual(
      dataplane.commands.map(({ type }) => type),
      ['hello', 'sync-begin', 'sync-end'],
    );
    dataplane.emit({ type: 'interface', name: 'veth0', up: true });
    await until(() => events.length === 1);
    assert.deepEqual(events, [{ type: 'interface', name: 'veth0', up: true }]);
    assert.deepEqual((await link.stats()).counters, { tun_rx_packets: 7, 'drop.replay': 2 });
  });

  test('comes back by itself after the data plane was away', async () => {
    link.start();
    await until(() => hellos.length === 1);
    dataplane.disconnect();
    await until(() => lost === 1 && hellos.length === 2);
    assert.equal(link.connected, true);
  });

  test('asks a data plane that forwards already what it does, and does without from an older one', async () => {
    const peer = 'BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=';
    const told = { peers: [{ publicKey: peer, locators: [] }], mappings: [] };
    dataplane.hello = { ...dataplane.hello, configured: true };
    dataplane.results.forwarding = told;
    link.start();
    await until(() => hellos.length === 1);
    assert.deepEqual(forwarding, told);
    dataplane.results.forwarding = {};
    dataplane.disconnect();
    await until(() => hellos.length === 2);
    assert.equal(forwarding, null);
  });

  test('a request that is on its way when the connection ends is rejected, not forgotten', async () => {
    link.start();
    await until(() => hellos.length === 1);
    dataplane.results.peers = { peers: 'wrong' };
    await assert.rejects(link.peers(), { code: 'STAYPUT_DATAPLANE_FRAME' });
    const pending = link.stats();
    dataplane.disconnect();
    await assert.rejects(pending, { code: 'STAYPUT_DATAPLANE_AWAY' });
  });

  test('what is asked of a data plane that stands still fails in time', async (t) => {
    link.start();
    await until(() => hellos.length === 1);
    t.mock.timers.enable({ apis: ['setTimeout'] });
    for (const type of ['stats', 'peers', 'correspondents'] as const) dataplane.unanswered.add(type);
    const late = { code: 'STAYPUT_DATAPLANE_LATE' };
    const asked = [assert.rejects(link.stats(), late), assert.rejects(link.peers(), late)];
    const needed = assert.rejects(link.correspondents(parseIpPrefix('10.77.0.1/32')), late);
    await dataplane.until(() => dataplane.commands.length === 4);
    t.mock.timers.tick(1500);
    await Promise.all(asked);
    t.mock.timers.tick(10_000);
    await needed;
    dataplane.unanswered.clear();
    assert.deepEqual(await link.peers(), { peers: [] });
    t.mock.timers.tick(10_000);
    assert.equal(link.connected, true);
  });

  for (const silent of ['hello', 'forwarding'] as const) {
    test(`a data plane that does not answer ${silent} is told to be the problem, and greeted again`, async (t) => {
      t.mock.timers.enable({ apis: ['setTimeout'] });
      dataplane.hello = { ...dataplane.hello, configured: true };
      dataplane.results.forwarding = { peers: [], mappings: [] };
      dataplane.unanswered.add(silent);
      link.start();
      await dataplane.until(() => dataplane.commands.at(-1)?.type === silent);
      t.mock.timers.tick(10_000);
      while (dataplane.connections === 1) {
        t.mock.timers.tick(1);
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.match(link.lastProblem ?? '', new RegExp(`no answer to ${silent}`));
      dataplane.unanswered.clear();
      await until(() => hellos.length === 1);
      assert.deepEqual([link.lastProblem, forwarding], [null, { peers: [], mappings: [] }]);
    });
  }

  test('an incompatible data plane is not used', async () => {
    dataplane.hello = { ...dataplane.hello, capability: 99 };
    link.start();
    await dataplane.until(() => dataplane.connections >= 2);
    assert.deepEqual(hellos, []);
    assert.match(link.lastProblem ?? '', /version 99/);
  });

  test('the handovers of an older data plane, each by itself, are heard as well', async () => {
    link.start();
    await until(() => hellos.length === 1);
    dataplane.write(encodeFrame({ type: 'handover', publicKey: Buffer.alloc(32, 4).toString('base64'), micros: 1830 }));
    dataplane.emit({ type: 'handovers', micros: [1830, 2110] });
    await until(() => events.length === 2);
    assert.deepEqual(events, [
      { type: 'handovers', micros: [1830] },
      { type: 'handovers', micros: [1830, 2110] },
    ]);
  });

  test('events of a newer data plane are passed over, garbage ends the connection', async () => {
    link.start();
    await until(() => hellos.length === 1);
    dataplane.write(encodeFrame({ type: 'something-new', value: 1 }));
    dataplane.emit({ type: 'probe-result', token: 1, rttUs: null });
    await until(() => events.length === 1);
    dataplane.write(encodeFrame({ type: 'miss', eid: 'not an address', reason: 'destination' }));
    await until(() => lost === 1);
    await until(() => hellos.length === 2);
    const tooLong = Buffer.alloc(4);
    tooLong.writeUInt32BE(MAX_FRAME + 1);
    dataplane.write(tooLong);
    await until(() => lost === 2);
  });
});

describe('frames', () => {
  test('of a type that is not known are passed over, what says no type or less than its type needs is refused', () => {
    assert.equal(parseIncoming('{"type":"something-new"}'), undefined);
    for (const text of ['{"type":"reply","id":1}', '{"type":"handover"}', '{"type":7}', '{}', '5', 'null', '{']) {
      assert.throws(() => parseIncoming(text), { code: 'STAYPUT_DATAPLANE_FRAME' }, text);
    }
  });

  test('are cut from any chunks', () => {
    const bytes = Buffer.concat([encodeFrame({ a: 1 }), encodeFrame({ b: 'ü' }), encodeFrame({})]);
    for (let size = 1; size <= bytes.length; size++) {
      const reader = new FrameReader();
      const frames: string[] = [];
      for (let i = 0; i < bytes.length; i += size) frames.push(...reader.push(bytes.subarray(i, i + size)));
      assert.deepEqual(frames, ['{"a":1}', '{"b":"ü"}', '{}']);
    }
  });
});

describe('the golden lines of the channel', () => {
  const path = join(PROJECT_ROOT, 'test', 'vectors', 'dataplane-channel.jsonl');
  const lines = existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];

  test('every message of the data plane is understood', async () => {
    const messages = lines
      .map((line) => JSON.parse(line) as { side: string; message: DataplaneEvent | { type: 'reply' } })
      .filter(({ side }) => side === 'dataplane')
      .map(({ message }) => message);
    const wanted = messages.filter((message): message is DataplaneEvent => message.type !== 'reply');
    const folder = mkdtempSync(join(tmpdir(), 'stayput-golden-'));
    const dataplane = new FakeDataplane();
    await dataplane.listen(join(folder, 's'));
    const events: DataplaneEvent[] = [];
    let lost = false;
    await new Promise<void>((resolve) => {
      const end: DataplaneEvent = { type: 'probe-result', token: 4711, rttUs: null };
      const link = new DataplaneLink(
        join(folder, 's'),
        'test',
        {
          onHello: () => {
            for (const message of messages) dataplane.write(encodeFrame(message));
            dataplane.emit(end);
          },
          onEvent: (event) => {
            if (event.type === 'probe-result' && event.token === 4711) {
              link.close();
              resolve();
            } else events.push(event);
          },
          onLost: () => {
            lost = true;
            resolve();
          },
        },
        log,
      );
      link.start();
    });
    await dataplane.close();
    rmSync(folder, { recursive: true, force: true });
    assert.equal(lost, false);
    assert.deepEqual(events, wanted);
  });
});
