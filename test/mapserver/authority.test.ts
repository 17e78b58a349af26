/** The certificate authority: of an operator, rolled over under running agents, and what becomes of those that were away. */
import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { connect, type PeerCertificate, type TLSSocket } from 'node:tls';
import { pino } from 'pino';
import { CertificateRenewal, type Renewed } from '../../agent/shell/certificate-renewal.ts';
import { join as joinOverlay, tokenFingerprint } from '../../agent/shell/enrolment.ts';
import { type Identity, StateFolder } from '../../agent/shell/identity.ts';
import { readAnchors } from '../../agent/shell/trust-anchors.ts';
import type { CertificateNote, StoreRecord } from '../../mapserver/core/records.ts';
import {
  adoptAuthority,
  CLOCK_SKEW,
  callerOf,
  certifyAgent,
  createAuthority,
  createServerCertificate,
  crossCertify,
  endOf,
  fingerprint,
  type KeyAndCertificate,
  startOf,
} from '../../mapserver/shell/certificate-authority.ts';
import { initOverlay, openOverlay } from '../../mapserver/shell/overlay-files.ts';
import { type Dependents, Trust } from '../../mapserver/shell/trust.ts';
import type { IpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE } from '../../proto/eid.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { callApi } from '../../runtime/http-api.ts';
import { waitFor } from '../lab/wait.ts';
import { TestAgent, TestOverlay } from './overlay.ts';

const DAY = 86_400_000;
const folders: string[] = [];
const overlays: TestOverlay[] = [];
after(async () => {
  for (const overlay of overlays) await overlay.remove();
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

describe('a roll-over of the certificate authority', () => {
  test('reaches agents in their session, and those that are away when they come back; nobody loses a session', async () => {
    const overlay = await started();
    const here = await overlay.agent({ eids: ['10.77.0.5/32'] });
    const away = await TestAgent.enrol(overlay, await overlay.token({ eids: ['10.77.0.6/32'] }));
    const before = await authority(overlay);
    await overlay.admin('POST', '/v1/authority/rotate');
    const { authority: present, retiring } = await authority(overlay);
    assert.notEqual(present.fingerprint, before.authority.fingerprint);
    assert.equal(retiring?.fingerprint, before.authority.fingerprint);
    assert.equal(retiring?.dependents.agents, 2);
    assert.deepEqual((await here.notice(({ authorities }) => authorities.length === 2)).authorities, [
      present.fingerprint,
      before.authority.fingerprint,
    ]);
    assert.equal(here.closed, undefined);
    // It knows the authority before only, and has a certificate of that one.
    await away.connect();
    const [first, second] = [await renewed(overlay, here), await renewed(overlay, away)];
    assert.equal((await authority(overlay)).retiring?.dependents.agents, 2, 'the answers may have been lost');
    await renewed(overlay, here, first);
    await away.connect({ cert: second });
    await waitFor('seen with the new one', async () => (await authority(overlay)).retiring?.dependents.agents === 0);
    await overlay.admin('POST', '/v1/authority/retire');
    await here.notice(({ authorities: [head, ...more] }) => head === present.fingerprint && more.length === 0);
    assert.equal(here.closed, undefined);
    await assert.rejects(away.connect({ ca: await overlay.ca() }), /of one that was retired/);
    await assert.rejects(away.connect(), /certificate/, 'it cannot verify the map server any more');
  });

  test('leaves tokens with the fingerprint of either good for joining', async () => {
    const overlay = await started();
    const earlier = await overlay.token({ eids: ['10.77.0.5/32'] });
    await overlay.admin('POST', '/v1/authority/rotate');
    const later = await overlay.token({ eids: ['10.77.0.6/32'] });
    assert.notEqual(tokenFingerprint(earlier), tokenFingerprint(later));
    for (const token of [earlier, later]) {
      const { identity } = await joined(overlay, token);
      assert.equal(readAnchors(identity.ca).length, 2);
    }
  });

  test('waits for join tokens that name the authority before, and says which', async () => {
    const overlay = await started();
    await overlay.token({ eids: ['10.77.0.5/32'] });
    const [held] = await tokenIds(overlay);
    await overlay.admin('POST', '/v1/authority/rotate');
    await overlay.token({ eids: ['10.77.0.6/32'] });
    assert.deepEqual((await authority(overlay)).retiring?.dependents, { agents: 0, tokens: [held] });
    await assert.rejects(overlay.admin('POST', '/v1/authority/retire'), new RegExp(`join tokens name it.*${held}`));
    await overlay.admin('DELETE', `/v1/tokens/${held}`);
    await overlay.admin('POST', '/v1/authority/retire');
  });

  test('ends by itself when tokens are spent or over, and no certificate can be renewed any more', () => {
    const now = Date.now();
    const life = 30 * DAY;
    for (const [renewableFor, record, until] of [
      [0, token({ expiresAt: now + DAY }), now + DAY],
      [0, token({ expiresAt: now + DAY, authority: undefined }), now + DAY],
      [0, token({ expiresAt: now + DAY, used: 1 }), now],
      [0, agent({ authority: 'before', notAfter: now + DAY }), now + DAY + CLOCK_SKEW],
      [30 * DAY, agent({ authority: 'before', notAfter: now + DAY }), now + 31 * DAY + CLOCK_SKEW],
    ] as const) {
      const folder = mkdtempSync(join(tmpdir(), 'stayput-authority-'));
      folders.push(folder);
      initOverlay(folder, OVERLAY, now);
      const trust = new Trust(folder, openOverlay(folder, now), life, renewableFor);
      trust.rotate(now);
      if (until > now) assert.equal(trust.retireIfUnused([record], until - 1), false);
      assert.equal(trust.retireIfUnused([record], until), true);
    }
  });

  test('goes on over a restart, can be done again when it is over, and not before', async () => {
    const overlay = await started();
    const agent = await overlay.agent({});
    await overlay.admin('POST', '/v1/authority/rotate');
    await assert.rejects(overlay.admin('POST', '/v1/authority/rotate'), /going on already/);
    await overlay.stop();
    await overlay.start();
    await agent.connect();
    await assert.rejects(overlay.admin('POST', '/v1/authority/retire'), /1 agents have certificates of it/);
    await overlay.admin('POST', '/v1/authority/retire', { force: true });
    await assert.rejects(overlay.admin('POST', '/v1/authority/retire'), /no certificate authority is retiring/);
    await overlay.admin('POST', '/v1/authority/rotate');
  });

  test('an agent renews when the map server names other authorities, and keeps both', async () => {
    const overlay = await started();
    const { identity } = await joined(overlay, await overlay.token({ eids: ['10.77.0.5/32'] }));
    let present: Identity = identity;
    const news: Renewed[] = [];
    const renewal = new CertificateRenewal(
      () => present,
      (each) => {
        news.push(each);
        present = { ...present, ...each };
      },
      pino({ level: 'silent' }),
    );
    const told = async (): Promise<void> => {
      const { authority: first, retiring } = await authority(overlay);
      const authorities = [first, ...(retiring === null ? [] : [retiring])].map(({ fingerprint: each }) => each);
      renewal.handleAuthorities(authorities, 0);
    };
    await told();
    assert.equal(news.length, 0, 'nothing is new');
    await overlay.admin('POST', '/v1/authority/rotate');
    await told();
    await renewal.check();
    assert.equal(readAnchors(present.ca).length, 2);
    await overlay.admin('POST', '/v1/authority/retire', { force: true });
    await told();
    await renewal.check();
    renewal.stop();
    assert.equal(readAnchors(present.ca).length, 1);
    const [anchor] = readAnchors(present.ca);
    assert.ok(new X509Certificate(present.certificate).verify(anchor!.publicKey));
  });

  test('what an agent hears while it renews counts at the end, unless the renewal has brought just that', async () => {
    const overlay = await started();
    const { identity } = await joined(overlay, await overlay.token({ eids: ['10.77.0.5/32'] }));
    let present: Identity = identity;
    let renewals = 0;
    const renewal = new CertificateRenewal(
      () => present,
      (each) => {
        renewals++;
        present = { ...present, ...each };
      },
      pino({ level: 'silent' }),
    );
    await overlay.admin('POST', '/v1/authority/rotate');
    const { authority: first, retiring } = await authority(overlay);
    const authorities = [first, ...(retiring === null ? [] : [retiring])].map(({ fingerprint: each }) => each);
    renewal.handleAuthorities(authorities, 0);
    const one = renewal.check();
    renewal.handleAuthorities(authorities, 0);
    await one;
    await renewal.check();
    assert.equal(renewals, 1, 'it has them now');
    renewal.handleAuthorities(['another'], 0);
    const two = renewal.check();
    renewal.handleAuthorities(['yet another'], 0);
    await two;
    await renewal.check();
    renewal.stop();
    assert.equal(renewals, 3);
  });

  test('an agent whose renewal is under way does not look for the next one all the time', async (t) => {
    const overlay = await started();
    const { identity } = await joined(overlay, await overlay.token({ eids: ['10.77.0.5/32'] }));
    const sockets: Socket[] = [];
    const silent = createServer((socket) => sockets.push(socket)).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const mapServer = { host: '127.0.0.1', port: (silent.address() as AddressInfo).port };
    let looks = 0;
    const wall = (): number => {
      if (++looks > 100) throw new Error('the clock is asked all the time');
      return Date.now() + 365 * DAY;
    };
    const renewal = new CertificateRenewal(
      () => ({ ...identity, mapServer }),
      () => undefined,
      pino({ level: 'silent' }),
      wall,
    );
    t.mock.timers.enable({ apis: ['setTimeout'] });
    renewal.start();
    renewal.handleAuthorities([], 0);
    for (let ms = 0; ms < 1000; ms++) t.mock.timers.tick(1);
    renewal.stop();
    for (const socket of sockets) socket.destroy();
    silent.close();
    assert.ok(looks < 10, `the clock was asked ${looks} times in a second`);
  });
});

describe('an operator’s certificate authority', () => {
  test('issues everything, is trusted itself, and nothing else of its issuer is', async () => {
    const root = createAuthority('Corporate root', Date.now());
    const issuing = intermediate(root, 'Overlay issuing');
    const sibling = intermediate(root, 'Another one');
    const adopted = adoptAuthority(`${issuing.certificate}${root.certificate}`, issuing.key, Date.now());
    const overlay = await started({}, adopted);
    const token = await overlay.token({ eids: ['10.77.0.5/32'] });
    assert.equal(tokenFingerprint(token), fingerprint(issuing.certificate));
    const { identity } = await joined(overlay, token);
    const agent = TestAgent.of(overlay, identity);
    await agent.connect();
    agent.close();
    const { publicKey } = new X509Certificate(identity.certificate);
    const forged = certifyAgent(sibling, publicKey, identity.xtrId, Date.now());
    await assert.rejects(agent.connect({ cert: forged }), /of another certificate authority/);
    // To an authority of its own, and on to one of another name.
    await overlay.admin('POST', '/v1/authority/rotate');
    await agent.connect();
    agent.close();
    await overlay.admin('POST', '/v1/authority/retire', { force: true });
    await overlay.admin('POST', '/v1/authority/rotate', sibling);
    assert.match((await authority(overlay)).authority.subject, /Another one/);
  });

  test('is refused when it cannot be one', () => {
    const now = Date.now();
    const root = createAuthority('Corporate root', now);
    const issuing = intermediate(root, 'Overlay issuing');
    const stranger = createAuthority('Stranger', now);
    const leaf = certifyAgent(root, createPublicKey(createPrivateKey(issuing.key)), 'ab'.repeat(16) as never, now);
    const cases: readonly (readonly [string, string, RegExp])[] = [
      [issuing.certificate, stranger.key, /key does not belong/],
      [`${issuing.certificate}${stranger.certificate}`, issuing.key, /was not issued by/],
      [leaf, issuing.key, /may not issue certificates/],
      ['no PEM', issuing.key, /no certificate/],
      [issuing.certificate, 'no PEM', /key cannot be read/],
      [createAuthority('Old', now - 20 * 365 * DAY).certificate, issuing.key, /has ended/],
      [createAuthority('New', now + DAY).certificate, issuing.key, /not valid before/],
    ];
    for (const [certificate, key, why] of cases) assert.throws(() => adoptAuthority(certificate, key, now), why);
  });
});

describe('the certificate of the map server', () => {
  test('is renewed while sessions are up: they stay, and new ones are shown the new one', async (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    const overlay = await started();
    const agent = await overlay.agent({ eids: ['10.77.0.5/32'] });
    const shown = await serverCertificate(overlay);
    const { authority: own } = openOverlay(overlay.dataDir, Date.now());
    // As it would be found after most of its year.
    const old = createServerCertificate(own, ['127.0.0.1', 'localhost', '::1'], Date.now() - 300 * DAY);
    writeFileSync(join(overlay.dataDir, 'server-certificate.json'), JSON.stringify(old), { mode: 0o600 });
    t.mock.timers.tick(600_000);
    t.mock.timers.reset();
    const renewal = await serverCertificate(overlay);
    assert.notEqual(renewal.fingerprint256, shown.fingerprint256);
    assert.ok(Date.parse(renewal.valid_to) > Date.now() + 300 * DAY);
    assert.equal(agent.closed, undefined);
    const [mapping] = await agent.register(agent.mapping('10.77.0.5'));
    assert.equal(mapping?.generation, 1);
    const other = TestAgent.of(overlay, { ...agent.keys, certificate: agent.certificate, ca: agent.ca });
    await other.connect();
    other.close();
  });
});

describe('clocks that differ by up to five minutes, either way', () => {
  const now = Date.now();
  const authority = createAuthority('overlay', now);
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const certificate = new X509Certificate(certifyAgent(authority, publicKey, 'ab'.repeat(16) as XtrId, now, DAY));
  const callerAt = (at: number): string =>
    callerOf(
      { getPeerX509Certificate: () => certificate } as unknown as TLSSocket,
      [new X509Certificate(authority.certificate)],
      at,
    ).kind;

  test('keep no agent out: its certificate holds so much earlier and later', () => {
    const [first, last] = [startOf(certificate), endOf(certificate)];
    assert.equal(callerAt(first - CLOCK_SKEW), 'agent');
    assert.equal(callerAt(first - CLOCK_SKEW - 1_000), 'nobody');
    assert.equal(callerAt(last + CLOCK_SKEW), 'agent');
    assert.equal(callerAt(last + CLOCK_SKEW + 1_000), 'expired');
    assert.equal(CLOCK_SKEW, 300_000);
  });

  test('make no new certificate one of the future, nor one that has ended', () => {
    const server = createServerCertificate(authority, ['localhost'], now).certificate;
    for (const fresh of [certificate, new X509Certificate(server), new X509Certificate(authority.certificate)]) {
      assert.ok(startOf(fresh) <= now - CLOCK_SKEW && endOf(fresh) > now + CLOCK_SKEW, fresh.subject);
    }
  });
});

describe('an agent whose certificate has ended', () => {
  for (const [policy, age, outcome] of [
    ['allow', 5, null],
    ['allow', 45, /may be renewed for 30 days. That is over/],
    ['refuse', 5, /does not renew what has ended .* join again/],
  ] as const) {
    test(`${age} days ago, with expiredRenewal "${policy}": ${outcome === null ? 'comes back' : 'is told why not'}`, async () => {
      const overlay = await started({ enrolment: { expiredRenewal: policy } });
      const { identity } = await joined(overlay, await overlay.token({}));
      const ended = { ...identity, certificate: expired(overlay, identity, age) };
      await assert.rejects(TestAgent.of(overlay, ended).connect(), /401: The certificate of this agent ended/);
      const call = callApi(targetOf(ended), 'POST', '/v1/renew', { body: {} });
      if (outcome !== null) return await assert.rejects(call, outcome);
      const { certificate } = (await call) as { certificate: string };
      await TestAgent.of(overlay, { ...identity, certificate }).connect();
      return undefined;
    });
  }

  // Attack: renewals with ended certificates of another key, another authority, for another purpose, and of a revoked agent | 4 | 401, and 403 for the revoked one; no certificate is given out
  test('attack: come back with an ended certificate that is not one’s own', async () => {
    const overlay = await started({ enrolment: { expiredRenewal: 'allow' } });
    const { identity } = await joined(overlay, await overlay.token({}));
    const { identity: other } = await joined(overlay, await overlay.token({}));
    const renew = (certificate: string, key = identity.tlsPrivateKey): Promise<unknown> =>
      callApi({ ...targetOf(identity), certificate, privateKey: key }, 'POST', '/v1/renew', { body: {} });
    const stolen = expired(overlay, identity, 5);
    await assert.rejects(renew(stolen, other.tlsPrivateKey), /key values mismatch/, 'TLS needs the key');
    const foreign = createAuthority('other', Date.now() - 100 * DAY);
    const { publicKey } = new X509Certificate(identity.certificate);
    const forged = certifyAgent(foreign, publicKey, identity.xtrId, Date.now() - 35 * DAY);
    await assert.rejects(renew(forged), /of another certificate authority/);
    const { server } = openOverlay(overlay.dataDir, Date.now());
    await assert.rejects(renew(server.certificate, server.key), /does not name an agent/);
    await overlay.admin('DELETE', `/v1/agents/${identity.xtrId}`);
    await assert.rejects(renew(stolen), /this agent was revoked/);
  });
});

describe('renewals', () => {
  // Attack: renewals by one agent without a pause | 20 | five are answered, the others refused with 429; another agent renews meanwhile
  test('attack: renew a certificate over and over', async () => {
    const overlay = await started();
    const { identity } = await joined(overlay, await overlay.token({}));
    const { identity: other } = await joined(overlay, await overlay.token({}));
    const renew = async (who: Identity): Promise<string> => {
      try {
        await callApi(targetOf(who), 'POST', '/v1/renew', { body: {} });
        return 'ok';
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    const results: string[] = [];
    for (let i = 0; i < 20; i++) results.push(await renew(identity));
    assert.equal(results.filter((each) => each === 'ok').length, 5);
    assert.equal(results.filter((each) => each === 'STAYPUT_RATE').length, 15);
    assert.equal(await renew(other), 'ok');
  });
});

const OVERLAY = {
  ...{ instance: DEFAULT_INSTANCE, zone: 'stayput.internal', prefixes: ['10.77.0.0/16' as IpPrefix] },
  ...{ hosts: ['127.0.0.1'], port: 4342 },
};

function token(change: { expiresAt: number; used?: number; authority?: undefined }): StoreRecord {
  const grant = { eids: [], names: [], groups: [] };
  const made = { id: 'ab', secretHash: 'ab', authority: 'before', uses: 1, used: 0, createdAt: 0 };
  return { kind: 'token', ...grant, ...made, ...change } as StoreRecord;
}

function agent(certificate: CertificateNote): StoreRecord {
  return { kind: 'agent', certificate } as StoreRecord;
}

async function tokenIds(overlay: TestOverlay): Promise<string[]> {
  return (await overlay.admin<{ tokens: { id: string }[] }>('GET', '/v1/tokens')).tokens.map(({ id }) => id);
}

interface AuthorityView {
  readonly authority: { readonly fingerprint: string; readonly subject: string };
  readonly retiring: { readonly fingerprint: string; readonly dependents: Dependents } | null;
}

async function started(settings: object = {}, adopted?: KeyAndCertificate): Promise<TestOverlay> {
  const overlay = new TestOverlay(settings, adopted);
  overlays.push(overlay);
  await overlay.start();
  return overlay;
}

function authority(overlay: TestOverlay): Promise<AuthorityView> {
  return overlay.admin<AuthorityView>('GET', '/v1/authority');
}

/** As the agent's own command joins. */
async function joined(overlay: TestOverlay, token: string): Promise<{ readonly identity: Identity }> {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-authority-'));
  folders.push(folder);
  const request = { url: `https://127.0.0.1:${overlay.port}`, token, eids: [], names: [], force: false, software: 't' };
  return await joinOverlay(new StateFolder(folder), request);
}

function targetOf({ mapServer, ca, certificate, tlsPrivateKey }: Identity) {
  return { ...mapServer, ca, certificate, privateKey: tlsPrivateKey };
}

/** The new certificate of an agent that asks with this one. */
async function renewed(overlay: TestOverlay, agent: TestAgent, certificate = agent.certificate): Promise<string> {
  const target = { host: '127.0.0.1', port: overlay.port, ca: agent.ca };
  const credentials = { certificate, privateKey: agent.keys.tlsPrivateKey };
  const answer = await callApi({ ...target, ...credentials }, 'POST', '/v1/renew', { body: {} });
  return (answer as { certificate: string }).certificate;
}

/** A certificate that this overlay gave the agent, and that ended so many days ago. */
function expired(overlay: TestOverlay, { certificate, xtrId }: Identity, days: number): string {
  const { authority: own } = openOverlay(overlay.dataDir, Date.now());
  return certifyAgent(own, new X509Certificate(certificate).publicKey, xtrId, Date.now() - (30 + days) * DAY);
}

/** What the map server shows to whom connects now. */
async function serverCertificate(overlay: TestOverlay): Promise<PeerCertificate> {
  const socket = connect({ host: '127.0.0.1', port: overlay.port, rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const certificate = socket.getPeerCertificate();
  socket.destroy();
  return certificate;
}

/** What `issuer` certifies as an authority of its own. */
function intermediate(issuer: KeyAndCertificate, name: string): KeyAndCertificate {
  const { key, certificate } = createAuthority(name, Date.now());
  return { key, certificate: crossCertify(issuer, certificate, Date.now()) };
}
