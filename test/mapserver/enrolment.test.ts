/** Joining: EIDs from pools, and requests that want more than they may. */
import assert from 'node:assert/strict';
import { createPublicKey, diffieHellman, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { certificateRequest, join as joinOverlay } from '../../agent/shell/enrolment.ts';
import { generateKeys, StateFolder } from '../../agent/shell/identity.ts';
import { readSigningRequest } from '../../mapserver/shell/signing-request.ts';
import { enrolment, TestOverlay } from './overlay.ts';

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

describe('a token with a pool', () => {
  const overlay = new TestOverlay();
  before(() => overlay.start());
  after(() => overlay.remove());

  test('gives each agent that asks for none the next free EID, with the names that it asks for', async () => {
    await overlay.token({ eids: ['10.77.5.2/32'] });
    const holder = await overlay.agent({ eids: ['10.77.5.2/32'] });
    const token = await pool('10.77.5.0/29', { names: ['*.pool'], uses: 10 });
    const first = await joined(token, [], ['a.pool']);
    const second = await joined(token, [], []);
    assert.deepEqual(
      [first, second].map(({ eids }) => eids.filter(({ kind }) => kind === 'address').map(({ eid }) => eid)),
      [['[0]10.77.5.1/32'], ['[0]10.77.5.3/32']],
      'not the network, and not what another agent is granted',
    );
    assert.ok(first.eids.some(({ kind }) => kind === 'name'));
    const { eids } = await overlay.admin<{ eids: string[] }>('GET', `/v1/agents/${first.xtrId}`);
    assert.deepEqual(eids, ['10.77.5.1/32'], 'and is granted that alone');
    await overlay.admin('DELETE', `/v1/agents/${first.xtrId}`);
    const third = await joined(token, [], []);
    assert.equal(third.eids.find(({ kind }) => kind === 'address')?.eid, '[0]10.77.5.1/32', 'freed by the revocation');
    holder.close();
  });

  test('is no grant of the whole pool, and says when it is empty', async () => {
    const token = await pool('10.77.6.0/30', { uses: 10 });
    await assert.rejects(joined(token, ['10.77.6.1/32'], []), /does not grant 10\.77\.6\.1/);
    await joined(token, [], []);
    await joined(token, [], []);
    await assert.rejects(joined(token, [], []), /no free address left/);
  });

  test('gives an agent that asks again the same one', async () => {
    const token = await pool('10.77.7.0/24', { uses: 1 });
    const keys = generateKeys();
    const answers = [await overlay.enrol(enrolment(token, keys)), await overlay.enrol(enrolment(token, keys))];
    assert.deepEqual(
      answers.map((answer) => (answer as unknown as { assigned: string[] }).assigned),
      [['10.77.7.1/32'], ['10.77.7.1/32']],
    );
  });

  async function pool(prefix: string, more: object): Promise<string> {
    return (await overlay.admin<{ token: string }>('POST', '/v1/tokens', { pools: [prefix], ...more })).token;
  }

  async function joined(token: string, eids: readonly string[], names: readonly string[]) {
    const url = `https://127.0.0.1:${overlay.port}`;
    const result = await joinOverlay(new StateFolder(temporary()), {
      url,
      token,
      eids,
      names,
      force: false,
      software: '',
    });
    assert.equal(result.kind, 'joined');
    return { xtrId: result.identity.xtrId, eids: result.kind === 'joined' ? result.eids : [] };
  }
});

describe('requests that want more than they may', () => {
  const overlay = new TestOverlay();
  before(() => overlay.start());
  after(() => overlay.remove());

  // Attack: enrolment with a CSR whose subject is another agent | 1 | the certificate names the agent of the tunnel key, and nobody else
  test('attack: a CSR in the name of another agent', async () => {
    const victim = await overlay.agent({});
    const keys = generateKeys();
    const csr = certificateRequest(keys.tlsPrivateKey, victim.xtrId);
    const answer = await overlay.enrol(enrolment(await overlay.token({}), keys, { csr }));
    const certificate = new X509Certificate(answer.certificate);
    assert.equal(certificate.subjectAltName, `URI:urn:stayput:agent:${answer.xtrId}`);
    assert.equal(certificate.subject, `CN=${answer.xtrId}`);
    assert.notEqual(answer.xtrId, victim.xtrId);
    assert.equal(certificate.ca, false);
    victim.close();
  });

  // Attack: CSRs with keys of other kinds and sizes (RSA 4096, P-384, Ed25519), one of 100,000 octets, one of nothing but nested lengths | 5 | each refused as such, before any work on it
  test('attack: CSRs with keys that are not P-256, and with no end', async () => {
    const others = [
      generateKeyPairSync('rsa', { modulusLength: 4096 }),
      generateKeyPairSync('ec', { namedCurve: 'secp384r1' }),
      generateKeyPairSync('ed25519'),
    ].map(({ privateKey }) => privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
    const text = (bytes: Buffer): string =>
      `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
    const requests = [
      ...others.map((key) => requestWith(key)),
      text(Buffer.alloc(100_000, 0x30)),
      text(Buffer.concat(Array.from({ length: 1000 }, () => Buffer.from([0x30, 0x80])))),
    ];
    for (const csr of requests) assert.throws(() => readSigningRequest(csr), { code: 'STAYPUT_CERTIFICATE' });
    assert.equal(requests.length, 5);
  });

  // Attack: enrolments with tunnel keys of small order, with which anybody has the secret, in every way to write them | 14 | each refused as such; the token stays unspent
  test('attack: a tunnel key of small order', async () => {
    const token = await overlay.token({});
    const keys = smallOrderKeys();
    assert.equal(new Set(keys).size, 14);
    for (const tunnelKey of keys) {
      assert.throws(() => secretWith(tunnelKey), 'there is no secret with it');
      const refused = overlay.enrol(enrolment(token, generateKeys(), { tunnelKey }));
      await assert.rejects(refused, { status: 400, message: /tunnelKey: .*point of small order/ });
    }
    const answer = await overlay.enrol(enrolment(token, generateKeys()));
    assert.ok(answer.certificate);
  });

  // Attack: paths, control characters and other tricks where names, tokens and agents are named | 8 | refused with 400 or 404; nothing is read or written outside of the store
  test('attack: path traversal in names', async () => {
    const token = await overlay.token({ names: ['*'] });
    for (const name of ['../../etc/passwd', '..', 'a\u0000b', '%2e%2e%2fx', 'a/b'])
      await assert.rejects(overlay.enrol(enrolment(token, generateKeys(), { names: [name] })), { status: 400 });
    for (const path of ['/v1/tokens/..%2F..%2Foverlay.json', '/v1/agents/..%2F..%2Fstore.db', '/v1/tokens/__proto__'])
      await assert.rejects(overlay.admin('DELETE', path), ({ status }: { status: number }) =>
        [401, 404].includes(status),
      );
  });
});

/** The coordinates of https://cr.yp.to/ecdh.html#validate, each also with the bit that is ignored. */
function smallOrderKeys(): string[] {
  const near = ['ec', 'ed', 'ee'].map((low) => `${low}${'ff'.repeat(30)}7f`);
  const points = [
    '00'.repeat(32),
    `01${'00'.repeat(31)}`,
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    ...near,
  ].map((hex) => Buffer.from(hex, 'hex'));
  const ignored = points.map((point) => Buffer.from([...point.subarray(0, 31), (point[31] ?? 0) | 0x80]));
  return [...points, ...ignored].map((point) => point.toString('base64'));
}

/** @throws when the secret would be zeros */
function secretWith(tunnelKey: string): Buffer {
  const x = Buffer.from(tunnelKey, 'base64').toString('base64url');
  const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' });
  return diffieHellman({ publicKey, privateKey: generateKeyPairSync('x25519').privateKey });
}

/** As `certificateRequest` makes it; the signature does not matter, since the key is looked at first. */
function requestWith(privateKey: string): string {
  try {
    return certificateRequest(privateKey, 'x');
  } catch {
    // Ed25519 signs without a digest: one with a wrong algorithm is as good.
    return certificateRequest(generateKeys().tlsPrivateKey, 'x').replace(/[A-Za-z0-9+/]{20}\n/, `${'A'.repeat(20)}\n`);
  }
}

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-enrolment-'));
  folders.push(folder);
  return folder;
}
