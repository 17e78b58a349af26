import { strict as assert } from 'node:assert';
import { createHash, createPublicKey, verify, X509Certificate } from 'node:crypto';
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import forge from 'node-forge';
import {
  certificateRequest,
  type JoinRequest,
  join,
  keepIdentity,
  parseMapServerUrl,
  parseOwned,
  resetIdentity,
  tokenFingerprint,
} from '../../agent/shell/enrolment.ts';
import { generateKeys, StateFolder } from '../../agent/shell/identity.ts';
import { agentAddressOf, parseTunnelKey, xtrIdOf } from '../../proto/identity.ts';
import { ApiError, apiListener } from '../../runtime/http-api.ts';

interface EnrolBody {
  readonly token: string;
  readonly csr: string;
  readonly tunnelKey: string;
  readonly eids: readonly string[];
  readonly names: readonly string[];
}

describe('joining an overlay', () => {
  const tls = selfSigned();
  const fingerprint = createHash('sha256').update(new X509Certificate(tls.cert).raw).digest('hex');
  const token = tokenFor(fingerprint);
  let server: Server;
  let port: number;
  let folder: StateFolder;
  let asked: EnrolBody[] = [];
  let refuse: ApiError | null = null;
  let spoil: Record<string, unknown> = {};

  before(async () => {
    server = createServer(
      tls,
      apiListener(
        [
          { method: 'GET', path: '/v1/ca', handle: () => ({ ca: tls.cert }) },
          {
            method: 'POST',
            path: '/v1/enrol',
            handle: ({ body }) => {
              if (refuse !== null) throw refuse;
              const enrol = body as EnrolBody;
              asked.push(enrol);
              return {
                certificate: tls.cert,
                ca: tls.cert,
                xtrId: xtrIdOf(parseTunnelKey(enrol.tunnelKey)),
                instance: 0,
                overlay: ['10.77.0.0/16'],
                zone: 'stayput.internal',
                presharedKey: Buffer.alloc(32, 7).toString('base64'),
                eids: enrol.eids,
                names: enrol.names,
                ...spoil,
              };
            },
          },
        ],
        () => undefined,
      ),
    );
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  });

  after(() => server.close());

  beforeEach(() => {
    folder = new StateFolder(mkdtempSync(joinPath(tmpdir(), 'stayput-join-')));
    asked = [];
    refuse = null;
    spoil = {};
  });

  afterEach(() => rmSync(folder.path, { recursive: true, force: true }));

  const request = (changes: Partial<JoinRequest> = {}): JoinRequest => ({
    url: `https://127.0.0.1:${port}`,
    token,
    eids: ['10.77.0.5'],
    names: ['db'],
    force: false,
    software: 'test',
    ...changes,
  });

  test('keeps identity and keys for the owner alone, and the EIDs to be claimed', async () => {
    const result = await join(folder, request());
    assert.equal(result.kind, 'joined');
    const identity = folder.requireIdentity();
    assert.equal(identity.xtrId, xtrIdOf(identity.tunnelKey));
    assert.equal(statSync(joinPath(folder.path, 'identity.json')).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(folder.path).sort(), ['eids.json', 'identity.json', 'incarnation.json']);
    assert.deepEqual(
      folder.eids().eids.map(({ eid, state, names }) => [eid, state, names]),
      [
        [`[0]${agentAddressOf(identity.tunnelKey)}/128`, 'base', []],
        ['[0]10.77.0.5/32', 'base', ['db']],
        ['[0]name:db', 'base', []],
      ],
    );
    assert.deepEqual(asked[0]?.eids, ['10.77.0.5/32']);
    assert.deepEqual(asked[0]?.names, ['db']);
  });

  test('is idempotent for the same map server, and a clear error for another', async () => {
    await join(folder, request());
    const before = readFileSync(joinPath(folder.path, 'identity.json'), 'utf8');
    assert.equal((await join(folder, request())).kind, 'already');
    assert.equal(asked.length, 1);
    await assert.rejects(join(folder, request({ url: 'https://other.example' })), /already joined to .*--force/);
    assert.equal(readFileSync(joinPath(folder.path, 'identity.json'), 'utf8'), before);
    assert.equal((await join(folder, request({ force: true }))).kind, 'joined');
    assert.notEqual(asked[1]?.tunnelKey, asked[0]?.tunnelKey, 'a forced join is a new agent');
  });

  test('what root joins with, or resets, is for the user whose folder it is', {
    skip: process.getuid?.() === 0 ? false : 'needs root',
  }, async () => {
    chownSync(folder.path, 65_534, 65_534);
    const owners = () => readdirSync(folder.path).map((file) => `${file} ${statSync(joinPath(folder.path, file)).uid}`);
    const all = ['eids.json 65534', 'identity.json 65534', 'incarnation.json 65534'];
    refuse = new ApiError(401, 'STAYPUT_TOKEN', 'the token is spent');
    await assert.rejects(join(folder, request()));
    assert.deepEqual(owners(), ['joining.json 65534']);
    refuse = null;
    await join(folder, request());
    assert.deepEqual(owners().sort(), all);
    await join(folder, request({ force: true }));
    assert.deepEqual(owners().sort(), all);
    await resetIdentity(folder, request());
    assert.deepEqual(owners().sort(), all);
    keepIdentity(folder, { machineId: null, productUuid: null });
    assert.deepEqual(owners().sort(), all);
  });

  test('a forced join that is refused leaves the identity that the host has', async () => {
    const { identity } = await join(folder, request());
    refuse = new ApiError(401, 'STAYPUT_TOKEN', 'the token is spent');
    await assert.rejects(join(folder, request({ force: true })), { code: 'STAYPUT_TOKEN' });
    assert.deepEqual(folder.identity(), identity);
    assert.notDeepEqual(folder.eids().eids, []);
  });

  // Attack: a CA whose fingerprint is not the one of the join token | 1 | the join fails before the token or a key is
  // sent
  test('attack: a false map server at the first contact', async () => {
    await assert.rejects(join(folder, request({ token: tokenFor('0'.repeat(64)) })), {
      code: 'STAYPUT_CA_FINGERPRINT',
    });
    assert.deepEqual(asked, []);
    assert.equal(folder.identity(), undefined);
  });

  test('a refusal of the map server is told as it is, and the next try is the same agent', async () => {
    refuse = new ApiError(401, 'STAYPUT_TOKEN', 'the token is spent');
    await assert.rejects(join(folder, request()), { code: 'STAYPUT_TOKEN', message: 'the token is spent' });
    const { tunnelKey } = folder.joiningKeys();
    refuse = null;
    await join(folder, request());
    assert.equal(asked[0]?.tunnelKey, tunnelKey);
  });

  // Attack: answers with a foreign xTR-ID and with nonsense for an overlay | 2 | the join fails; no identity is kept
  test('attack: a wrong answer to an enrolment', async () => {
    spoil = { xtrId: 'f'.repeat(32) };
    await assert.rejects(join(folder, request()), { code: 'STAYPUT_ENROL' });
    spoil = { overlay: ['nonsense'] };
    await assert.rejects(join(folder, request()), /overlay/);
    assert.equal(folder.identity(), undefined);
  });

  test('nobody at the address is said with the address', async () => {
    await assert.rejects(join(folder, request({ url: 'https://127.0.0.1:1' })), /127\.0\.0\.1:1.*cannot be reached/);
  });
});

describe('what is typed to join', () => {
  test('URLs', () => {
    assert.deepEqual(parseMapServerUrl('https://ms.example'), { host: 'ms.example', port: 4342 });
    assert.deepEqual(parseMapServerUrl('https://ms.example:443/'), { host: 'ms.example', port: 443 });
    assert.deepEqual(parseMapServerUrl('ms.example:5000'), { host: 'ms.example', port: 5000 });
    assert.deepEqual(parseMapServerUrl('192.0.2.1'), { host: '192.0.2.1', port: 4342 });
    assert.deepEqual(parseMapServerUrl('https://[2001:db8::1]:4342'), { host: '2001:db8::1', port: 4342 });
    for (const wrong of ['http://ms.example', '', 'https://u:p@ms.example', 'https://ms.example/path', 'https://']) {
      assert.throws(() => parseMapServerUrl(wrong), { code: 'STAYPUT_USAGE' }, wrong);
    }
  });

  test('tokens', () => {
    assert.equal(tokenFingerprint(` ${tokenFor('a'.repeat(64))}\n`), 'a'.repeat(64));
    for (const wrong of [
      '',
      'stp1.',
      'stp1.abc',
      tokenFor('short'),
      'stp2.eyJmIjoiYSJ9eyJmIjoiYSJ9',
      'stp1.!!!!!!!!!!!!!!!!!!!!!!',
    ]) {
      assert.throws(() => tokenFingerprint(wrong), { code: 'STAYPUT_USAGE' }, wrong);
    }
  });

  test('EIDs and names', () => {
    assert.deepEqual(parseOwned(['10.77.0.5', '10.77.0.6'], ['DB', 'web=10.77.0.6']), [
      { prefix: '10.77.0.5/32', names: ['db'] },
      { prefix: '10.77.0.6/32', names: ['db', 'web'] },
    ]);
    assert.throws(() => parseOwned(['10.77.0.5/24'], []), /--eid: .*did you mean 10\.77\.0\.0\/24/);
    assert.throws(() => parseOwned([], ['db']), /--name db/);
    assert.throws(() => parseOwned(['10.77.0.5'], ['db=10.77.0.6']), /not among/);
    assert.throws(() => parseOwned(['10.77.0.5'], ['-bad-']), /--name/);
  });
});

test('the certificate request is signed by its key and carries it', () => {
  const keys = generateKeys();
  const pem = certificateRequest(keys.tlsPrivateKey, 'agent');
  const der = Buffer.from(pem.replace(/-----[^-]+-----/g, ''), 'base64').toString('binary');
  const [info, , signature] = forge.asn1.fromDer(der).value as forge.asn1.Asn1[];
  const spki = Buffer.from(forge.asn1.toDer((info!.value as forge.asn1.Asn1[])[2]!).getBytes(), 'binary');
  const publicKey = createPublicKey({ key: spki, format: 'der', type: 'spki' });
  assert.deepEqual(
    publicKey.export({ type: 'spki', format: 'pem' }),
    createPublicKey(keys.tlsPrivateKey).export({ type: 'spki', format: 'pem' }),
  );
  const signed = Buffer.from(forge.asn1.toDer(info!).getBytes(), 'binary');
  const bits = signature as forge.asn1.Asn1 & { bitStringContents?: string };
  const value = Buffer.from(bits.bitStringContents ?? (bits.value as string), 'binary').subarray(1);
  assert.ok(verify('sha256', signed, publicKey, value));
});

function tokenFor(fingerprint: string): string {
  const secret = Buffer.alloc(24, 3).toString('base64url');
  return `stp1.${Buffer.from(JSON.stringify({ f: fingerprint, s: secret })).toString('base64url')}`;
}

/** An RSA certificate for 127.0.0.1 that is its own CA. */
function selfSigned(): { readonly cert: string; readonly key: string } {
  const { pki } = forge;
  const keys = pki.rsa.generateKeyPair(2048);
  const certificate = pki.createCertificate();
  certificate.publicKey = keys.publicKey;
  certificate.serialNumber = '01';
  certificate.validity.notBefore = new Date(Date.now() - 60_000);
  certificate.validity.notAfter = new Date(Date.now() + 3_600_000);
  const name = [{ name: 'commonName', value: 'test CA' }];
  certificate.setSubject(name);
  certificate.setIssuer(name);
  certificate.setExtensions([
    { name: 'basicConstraints', cA: true },
    { name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] },
  ]);
  certificate.sign(keys.privateKey, forge.md.sha256.create());
  return { cert: pki.certificateToPem(certificate), key: pki.privateKeyToPem(keys.privateKey) };
}
