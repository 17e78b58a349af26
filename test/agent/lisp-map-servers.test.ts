/** What the configuration says of mapping systems of others. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { AGENT_CONFIG } from '../../agent/config.ts';
import { lispElsewhere } from '../../agent/shell/lisp-map-servers.ts';

const folder = mkdtempSync(join(tmpdir(), 'stayput-keys-'));
const keyFile = join(folder, 'site.key');
const plain = [{ rlocs: ['192.0.2.0/24'] }];

after(() => rmSync(folder, { recursive: true }));

test('a key is a line of a file, and signs as the Map-Server wants it', () => {
  writeFileSync(keyFile, 'secret\n');
  const server = { address: '198.51.100.1', keyFile, eids: ['10.77.0.0/16'], algorithm: 'hkdf', wholeDigest: true };
  const elsewhere = lispElsewhere(AGENT_CONFIG.parse({ lisp: { plain, mapServers: [server] } }));
  const [{ port, signing } = assert.fail()] = elsewhere?.mapServers ?? [];
  assert.deepEqual([port, signing.keyId, signing.algorithm], [4342, 0, 3]);
  assert.deepEqual(
    [Buffer.from(signing.psk).toString(), signing.coverage, signing.length],
    ['secret', 'payload', 'full'],
  );
});

test('one that is only asked needs no key', () => {
  const server = { address: '198.51.100.1', resolve: ['10.9.0.0/16'] };
  const elsewhere = lispElsewhere(AGENT_CONFIG.parse({ lisp: { plain, mapServers: [server] } }));
  assert.deepEqual([elsewhere?.mapServers, elsewhere?.mapResolvers.length], [[], 1]);
});

test('a key that cannot be read, or is empty, is an error that names the file', () => {
  const missing = { address: '198.51.100.1', keyFile: join(folder, 'missing'), eids: ['10.77.0.0/16'] };
  const config = (server: object) => AGENT_CONFIG.parse({ lisp: { plain, mapServers: [server] } });
  assert.throws(() => lispElsewhere(config(missing)), /missing cannot be read/);
  writeFileSync(keyFile, '\n');
  assert.throws(() => lispElsewhere(config({ ...missing, keyFile })), /site\.key is empty/);
});

test('what makes no sense is refused', () => {
  const server = { address: '198.51.100.1', keyFile, eids: ['10.77.0.0/16'] };
  for (const [lisp, reason] of [
    [{ mapServers: [server] }, /no plain/],
    [{ plain, mapServers: [server, server] }, /an address twice/],
    [{ plain, mapServers: [{ ...server, keyFile: null }] }, /no keyFile/],
    [{ plain, mapServers: [{ ...server, resolve: ['0.0.0.0/0'] }] }, /less than 4 bits/],
    [{ plain, mapServers: [{ ...server, algorithm: 'hmac-sha-1' }] }, /algorithm|Invalid/],
  ] as const) {
    assert.throws(() => AGENT_CONFIG.parse({ lisp }), reason);
  }
});
