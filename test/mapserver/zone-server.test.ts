/** What the zone's name server reads before it starts, and what strangers on its sockets cannot do. */
import assert from 'node:assert/strict';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { CONFIG } from '../../mapserver/config.ts';
import type { ZoneEntry } from '../../mapserver/core/names.ts';
import { isNewer } from '../../mapserver/core/zone-answers.ts';
import { MapServerMetrics } from '../../mapserver/shell/metrics.ts';
import { readTsigKeyFile } from '../../mapserver/shell/tsig-key-file.ts';
import { listenForZone } from '../../mapserver/shell/zone-listener.ts';
import { ZoneSerials } from '../../mapserver/shell/zone-serials.ts';
import { ZoneServer } from '../../mapserver/shell/zone-server.ts';
import { ZoneSignedTimes } from '../../mapserver/shell/zone-signed-times.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { NO_RECORDS } from '../../proto/dns/record-sets.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import { createLog } from '../../runtime/log.ts';
import { TestOverlay } from './overlay.ts';

const dir = mkdtempSync(join(tmpdir(), 'stayput-zone-'));
const SECRET = Buffer.alloc(32, 7).toString('base64');
after(() => rmSync(dir, { recursive: true, force: true }));

describe('key files', () => {
  test('one as tsig-keygen prints it is read', () => {
    const path = keyFile(`key "Xfr.Test" {\n\talgorithm hmac-sha512;\n\tsecret "${SECRET}";\n};\n`);
    const key = readTsigKeyFile(path);
    assert.deepEqual([key.name, key.algorithm, key.secret.length], ['xfr.test', 'hmac-sha512', 32]);
  });

  const wrong = {
    'others may read it': [`key a { algorithm hmac-sha256; secret "${SECRET}"; };`, 0o640, /chmod 600/],
    'the algorithm is weak': [`key a { algorithm hmac-md5; secret "${SECRET}"; };`, 0o600, /hmac-sha256/],
    'the secret is short': ['key a { algorithm hmac-sha256; secret "c2hvcnQ="; };', 0o600, /at least 16/],
    'there are two keys': [`key a { algorithm hmac-sha256; secret "${SECRET}"; };`.repeat(2), 0o600, /form/],
  } as const;
  for (const [what, [text, mode, message]] of Object.entries(wrong)) {
    test(`it is refused when ${what}`, () => {
      assert.throws(() => readTsigKeyFile(keyFile(text, mode)), { code: 'STAYPUT_USAGE', message });
    });
  }

  test('a map server whose settings name a key that there is not does not start', async () => {
    const overlay = new TestOverlay({ zone: { listen: ['127.0.0.1:0'], transferKeys: ['none'] } });
    await assert.rejects(overlay.start(), /holds a key named "none"/);
    await overlay.remove();
  });
});

test('serials grow over restarts, also one before the first of them is taken', () => {
  const path = join(dir, 'serial.json');
  const taken: number[] = [];
  for (const count of [3_000, 0, 1, 3_000]) {
    const serials = new ZoneSerials(path, 0);
    for (let i = 0; i < count; i++) taken.push(serials.take());
  }
  for (const [i, serial] of taken.entries()) if (i > 0) assert.ok(serial > (taken[i - 1] ?? 0), `${serial}`);
});

test('serials grow also when their file is lost, by the time that has passed', () => {
  const path = join(dir, 'lost.json');
  const now = 1_795_300_000_000;
  const before = new ZoneSerials(path, now);
  const last = Array.from({ length: 100 }, () => before.take()).at(-1) ?? 0;
  rmSync(path);
  assert.ok(isNewer(new ZoneSerials(path, now + 101_000).take(), last));
  assert.equal(new ZoneSerials(path, 0).take(), last + 2 + 1024, 'a clock that was set back is no reason to go back');
});

test('until when keys have signed is known to the next process, for as long as it matters', () => {
  const path = join(dir, 'signed-times.json');
  let now = 1_795_300_000_000;
  const signedTimes = (): ZoneSignedTimes => new ZoneSignedTimes(path, () => now);
  const first = signedTimes();
  first.note('a', now / 1000 + 5);
  first.note('a', now / 1000 + 1);
  assert.equal(first.beforeStart('a'), 0, 'what it has seen itself is remembered one by one');
  assert.deepEqual([signedTimes().beforeStart('a'), signedTimes().beforeStart('b')], [now / 1000 + 5, 0]);
  now += 700_000;
  signedTimes().note('b', now / 1000);
  assert.deepEqual([signedTimes().beforeStart('a'), signedTimes().beforeStart('b')], [0, now / 1000]);
});

test('names that are registered while the sockets are bound are served', async () => {
  const entries = new Map<string, ZoneEntry>();
  let tell: (names: ReadonlySet<string>) => void = () => assert.fail('nobody listens');
  const names = { entries: () => entries.values(), entry: (name: string) => entries.get(name) };
  const starting = ZoneServer.start({
    settings: CONFIG.parse({ zone: { listen: ['127.0.0.1:0'], transferAddresses: ['127.0.0.1/32'] } }).zone,
    zone: 'stayput.internal',
    prefixes: [],
    driver: {
      core: { names, state: { nameRecord: () => undefined } },
      operate: () => assert.fail('nothing is changed'),
      onNames: (listener) => {
        tell = listener;
      },
    },
    audit: { write: () => {} },
    serialsFile: join(dir, 'served.json'),
    signedFile: join(dir, 'signed.json'),
    metrics: new MapServerMetrics(),
    log: createLog('mapserver', 'silent'),
  });
  const member = { address: parseIpAddress('10.77.0.5'), weight: 1, live: true, leadsBack: true };
  entries.set('db', { name: 'db', members: [member], records: NO_RECORDS });
  tell(new Set(['db']));
  const server = await starting;
  const resolver = new Resolver();
  resolver.setServers([...server.addresses]);
  assert.deepEqual(await resolver.resolve4('db.stayput.internal'), ['10.77.0.5']);
  await server.close();
});

// Attack: 40 connections from one address that ask nothing | 40 | at most 16 stay open
test('attack: connections to the zone that ask nothing', async () => {
  const listener = await listenForZone('127.0.0.1:0', (client) => client.ignore());
  const { host, port } = parseHostPort(listener.address);
  const sockets: Socket[] = Array.from({ length: 40 }, () => connect(port, host));
  let open = sockets.length;
  const closed = new Promise<void>((resolve) => {
    for (const socket of sockets) {
      socket.on('error', () => {});
      socket.resume().once('close', () => {
        open--;
        if (open === 16) resolve();
      });
    }
  });
  await closed;
  for (const socket of sockets) socket.destroy();
  const again = connect(port, host);
  await once(again, 'connect');
  again.destroy();
  await listener.close();
});

let files = 0;

function keyFile(text: string, mode = 0o600): string {
  files++;
  const path = join(dir, `key-${files}`);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}
