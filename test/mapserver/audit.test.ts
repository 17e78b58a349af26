/** The audit log: one line for each thing that was done or tried, whatever happens to the disk, and no secrets. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pino } from 'pino';
import { generateKeys } from '../../agent/shell/identity.ts';
import type { ServerEvent } from '../../mapserver/core/actions.ts';
import { type AuditEntry, type AuditLine, AuditLog, readAuditLog } from '../../mapserver/shell/audit-log.ts';
import { AUDITED_ROUTES, auditEvent, READING_ROUTES } from '../../mapserver/shell/audited.ts';
import { waitFor } from '../lab/wait.ts';
import { enrolment, TestAgent, TestOverlay } from './overlay.ts';

const log = pino({ level: 'silent' });
const ENTRY: AuditEntry = { event: 'token-created', who: 'admin', what: { id: 'x' }, result: 'ok' };

describe('every call that changes something leaves exactly one line', () => {
  const overlay = new TestOverlay();
  let agent: TestAgent;
  let other: TestAgent;
  before(async () => {
    await overlay.start();
    agent = await overlay.agent({ eids: ['10.77.0.0/24'] });
    other = await overlay.agent({});
    await agent.register(agent.mapping('agent'), agent.mapping('10.77.0.5'));
  });
  after(() => overlay.remove());

  test('no route of the admin API that changes something is missing from the table', async () => {
    const source = ['admin-api', 'authority-api', 'policy-api', 'sites-api']
      .map((name) => join(import.meta.dirname, `../../../mapserver/shell/${name}.ts`))
      .filter((path) => existsSync(path))
      .map((path) => readFileSync(path, 'utf8'))
      .join('');
    const routes = [...source.matchAll(/method: '(POST|PUT|DELETE)',\s+path: '([^']+)'/g)].map(
      ([, m, p]) => `${m} ${p}`,
    );
    assert.ok(routes.length >= 10);
    assert.deepEqual(
      routes.filter((route) => AUDITED_ROUTES[route] === undefined && !READING_ROUTES.has(route)),
      [],
    );
  });

  const good = (): Record<string, readonly [path: string, body?: unknown]> => ({
    'POST /v1/tokens': ['/v1/tokens', { eids: ['10.77.0.9/32'] }],
    'POST /v1/grants': ['/v1/grants', { agent: other.xtrId, eids: ['10.77.3.0/24'] }],
    'DELETE /v1/grants': ['/v1/grants', { agent: other.xtrId, eids: ['10.77.3.0/24'] }],
    'POST /v1/eids': ['/v1/eids', { eid: '10.77.0.5/32', agent: agent.xtrId }],
    'DELETE /v1/eids/:eid': ['/v1/eids/10.77.0.77%2F32', undefined],
    'DELETE /v1/agents/:xtrId': [`/v1/agents/${other.xtrId}`, undefined],
    'POST /v1/sites': ['/v1/sites', { name: 'paris', prefixes: [{ prefix: '10.9.0.0/16' }] }],
    'POST /v1/sites/:name/keys': ['/v1/sites/paris/keys', { keyId: 1, secret: 'c2VjcmV0LXNlY3JldA==' }],
    'POST /v1/policy': ['/v1/policy', { text: 'default allow\n' }],
    'POST /v1/authority/rotate': ['/v1/authority/rotate', {}],
    'POST /v1/authority/retire': ['/v1/authority/retire', { force: true }],
  });

  for (const [route, { event }] of Object.entries(AUDITED_ROUTES)) {
    test(`${route}: refused, and done`, async () => {
      const [method = '', pattern = ''] = route.split(' ');
      const call = (path: string, body?: unknown): Promise<unknown> =>
        overlay.admin(method as 'POST', path, body).catch((error: unknown) => error);
      const before_ = (await lines()).filter((line) => line.event === event).length;
      const [path, body] = good()[route] ?? [pattern, { nonsense: true }];
      await call(path.replace(/[0-9a-f]{32}|10\.77.*/, 'zz'), { nonsense: true });
      const after_ = await lines();
      assert.equal(after_.filter((line) => line.event === event).length, before_ + 1, `one line for ${route}`);
      assert.equal(after_.at(-1)?.who, 'admin');
      assert.match(after_.at(-1)?.result ?? '', /^STAYPUT_|^ok$/);
      if (good()[route] === undefined) return;
      await call(path, body);
      const done = (await lines()).filter((line) => line.event === event);
      assert.equal(done.length, before_ + 2);
      assert.equal(done.at(-1)?.result, 'ok', JSON.stringify(done.at(-1)));
    });
  }

  test('a token is revoked: its id is in the line, and its text is nowhere', async () => {
    const made = await overlay.admin<{ id: string; token: string }>('POST', '/v1/tokens', { eids: ['10.77.0.8/32'] });
    await overlay.admin('DELETE', `/v1/tokens/${made.id}`);
    assert.equal((await lines()).at(-1)?.what.id, made.id);
    assert.equal(readFileSync(join(overlay.dataDir, 'audit.log'), 'utf8').includes(made.token), false);
  });

  async function lines(): Promise<AuditLine[]> {
    await new Promise((resolve) => setImmediate(resolve));
    return [...readAuditLog(overlay.dataDir)];
  }
});

describe('what agents do', () => {
  const overlay = new TestOverlay();
  before(() => overlay.start());
  after(() => overlay.remove());

  test('is told with who, from where and what: joining, taking, moving, giving up, being refused', async () => {
    const a = await overlay.agent({ eids: ['10.77.0.5/32'] });
    const b = await overlay.agent({ eids: ['10.77.0.5/32'] });
    await a.register(a.mapping('10.77.0.5'));
    await b.register(b.mapping('10.77.0.5'));
    await b.register(b.mapping('10.77.0.6'));
    await b.register(b.mapping('10.77.0.5', { generation: 2 as never, ttl: 0 }));
    const told = await until((lines) => lines.some(({ event }) => event === 'eid-released'));
    const of = (event: string): readonly AuditLine[] => told.filter((line) => line.event === event);
    assert.deepEqual(
      of('agent-enrolled').map(({ what, from, result }) => [what.agent, from, result]),
      [
        [a.xtrId, '127.0.0.1', 'ok'],
        [b.xtrId, '127.0.0.1', 'ok'],
      ],
    );
    assert.equal(of('token-used-up').length, 2);
    assert.deepEqual(
      of('eid-taken').map(({ who, what, from }) => [who, what.eid, from]),
      [[`agent ${a.xtrId}`, '[0]10.77.0.5/32', '127.0.0.1']],
    );
    assert.deepEqual(of('eid-moved')[0]?.what, {
      eid: '[0]10.77.0.5/32',
      before: a.xtrId,
      to: b.xtrId,
      generation: 2,
    });
    assert.equal(of('eid-moved').length, 1);
    assert.deepEqual(
      of('registration-refused').map(({ who, what, result }) => [who, what.eid, result]),
      [[`agent ${b.xtrId}`, '[0]10.77.0.6/32', 'not-granted']],
    );
    assert.equal(of('eid-released').length, 1);
  });

  test('is told when it fails to join or to authenticate', async () => {
    const token = await overlay.token({});
    const agent = await TestAgent.enrol(overlay, token);
    await assert.rejects(overlay.enrol(enrolment(token, generateKeys()), agent.ca), /used already/);
    await assert.rejects(agent.connect({ cert: undefined, key: undefined }), /401/);
    await overlay.admin('DELETE', `/v1/agents/${agent.xtrId}`);
    await assert.rejects(agent.connect(), /403/);
    const told = await until((lines) => lines.some(({ result }) => result === 'revoked'));
    assert.ok(told.some(({ event, result }) => event === 'agent-enrolled' && result === 'STAYPUT_TOKEN_SPENT'));
    const failures = told.filter(({ event }) => event === 'authentication-failed');
    assert.deepEqual(
      failures.map(({ who, result }) => [who, result]),
      [
        ['unknown', 'certificate'],
        [`agent ${agent.xtrId}`, 'revoked'],
      ],
    );
  });

  // Attack: enrolments with guessed tokens as fast as they go, from one source that may try once a second | 200 | none is accepted; those beyond the rate are refused with 429 and not looked at; the audit log accounts for each; an honest agent from there joins soon after
  test('attack: guess join tokens', async () => {
    const besieged = new TestOverlay({ limits: { enrolmentsPerSecondAndSource: 1 } });
    await besieged.start();
    after(() => besieged.remove());
    const ca = await besieged.ca();
    const guess = `stp1.${Buffer.from(JSON.stringify({ f: '0'.repeat(64), s: 'guessed-secret-000' })).toString('base64url')}`;
    const keys = generateKeys();
    const began = performance.now();
    const tries = async (): Promise<string[]> => {
      const codes: string[] = [];
      while (codes.length < 10) {
        const tried = besieged.enrol(enrolment(guess, keys), ca);
        codes.push(
          await tried.then(
            () => 'ok',
            (error: { code: string }) => error.code,
          ),
        );
      }
      return codes;
    };
    const codes = (await Promise.all(Array.from({ length: 20 }, tries))).flat();
    const seconds = (performance.now() - began) / 1000;
    assert.deepEqual([...new Set(codes)].sort(), ['STAYPUT_RATE', 'STAYPUT_TOKEN_UNKNOWN']);
    const looked = codes.filter((code) => code !== 'STAYPUT_RATE').length;
    assert.ok(looked <= 5 + seconds, `${looked} were looked at in ${seconds} s`);
    const token = await besieged.token({});
    await waitFor('an honest agent joins', () => TestAgent.enrol(besieged, token).then(() => true));
    await besieged.stop();
    const failed = [...readAuditLog(besieged.dataDir)].filter(
      ({ event, result }) => event === 'agent-enrolled' && result !== 'ok',
    );
    const accounted = failed.length + failed.reduce((sum, { suppressed = 0 }) => sum + suppressed, 0);
    assert.ok(accounted >= 200, `${accounted}`);
  });

  async function until(enough: (lines: readonly AuditLine[]) => boolean): Promise<readonly AuditLine[]> {
    return await waitFor('the lines', () => {
      const lines = [...readAuditLog(overlay.dataDir)];
      return enough(lines) && lines;
    });
  }
});

test('every event of the core has its line, or none because something else has', () => {
  const got: AuditEntry[] = [];
  const take = (entry: AuditEntry) => got.push(entry);
  const sink = { write: take, writeLimited: take, writeOfAgent: take };
  const xtrId = 'ab'.repeat(16) as never;
  const eid = '[0]10.77.0.5/32' as never;
  const registration = { kind: 'registration' as const, xtrId, eid };
  const cases: readonly (readonly [ServerEvent, string | null])[] = [
    [{ ...registration, result: 'taken' }, 'eid-taken'],
    [{ ...registration, result: 'taken', previous: xtrId }, null],
    [{ ...registration, result: 'recovered' }, 'eid-recovered'],
    [{ ...registration, result: 'refreshed' }, null],
    [{ ...registration, result: 'released' }, 'eid-released'],
    [{ ...registration, result: 'target' }, null],
    [{ ...registration, result: 'stale' }, 'registration-refused'],
    [{ ...registration, result: 'not-granted' }, 'registration-refused'],
    [{ kind: 'moved', eid, from: xtrId, to: xtrId, generation: 2 }, 'eid-moved'],
    [{ kind: 'withdrawn', xtrId, count: 2 }, 'eid-withdrawn'],
    [{ kind: 'withdrawn', xtrId, count: 0 }, null],
    [{ kind: 'rejected', xtrId, reason: 'foreign-xtr-id' }, 'message-rejected'],
    [{ kind: 'operation', operation: 'enrol', result: 'ok' }, null],
    [{ kind: 'order', order: 'attach', result: 'ok', eid }, null],
    [{ kind: 'request', result: 'subscribed' }, null],
    [{ kind: 'notify', why: 'publication' }, null],
  ];
  for (const [event, line] of cases) {
    got.length = 0;
    auditEvent(sink as unknown as AuditLog, event, () => '192.0.2.1');
    assert.deepEqual(
      got.map((entry) => entry.event),
      line === null ? [] : [line],
      JSON.stringify(event),
    );
  }
});

describe('the file', () => {
  const folders: string[] = [];
  after(() => {
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  });

  function opened(options: Partial<{ dataDir: string; maxOctets: number; olderFiles: number }> = {}) {
    const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'stayput-audit-'));
    folders.push(dataDir);
    const counts = { written: 0, lost: 0, suppressed: 0 };
    const audit = new AuditLog({
      ...{ dataDir, maxOctets: 1_000_000, olderFiles: 3, log },
      ...options,
      count: (what, lines) => {
        counts[what] += lines;
      },
    });
    return { audit, dataDir, counts, lines: () => [...readAuditLog(dataDir)] };
  }

  test('is 0600, goes on after a restart, and is read over what a crash tore', () => {
    const { audit, dataDir } = opened();
    audit.write(ENTRY);
    audit.close();
    const path = join(dataDir, 'audit.log');
    assert.equal(statSync(path).mode & 0o777, 0o600);
    writeFileSync(path, '{"time":"2026-01-01T00:0', { flag: 'a' });
    writeFileSync(path, '\n', { flag: 'a' });
    const again = opened({ dataDir });
    again.audit.write({ ...ENTRY, event: 'token-revoked' });
    again.audit.close();
    assert.deepEqual(
      again.lines().map(({ event }) => event),
      ['token-created', 'token-revoked'],
    );
  });

  test('is rotated by size, and the oldest goes', () => {
    const { audit, dataDir, lines } = opened({ maxOctets: 300, olderFiles: 2 });
    for (let i = 0; i < 20; i++) {
      audit.write({ ...ENTRY, what: { number: i } });
      audit.close();
    }
    assert.ok(existsSync(join(dataDir, 'audit.log.2')) && !existsSync(join(dataDir, 'audit.log.3')));
    const numbers = lines().map(({ what }) => what.number as number);
    assert.equal(numbers.at(-1), 19);
    assert.deepEqual(
      numbers,
      [...numbers].sort((x, y) => x - y),
    );
    assert.ok(numbers.length < 20);
    for (const name of ['audit.log', 'audit.log.1', 'audit.log.2'])
      assert.ok(statSync(join(dataDir, name)).size <= 300);
  });

  test('that cannot be written stops nothing: lines are counted, and the gap is noted when it can be again', () => {
    const folder = mkdtempSync(join(tmpdir(), 'stayput-audit-'));
    folders.push(folder);
    const dataDir = join(folder, 'missing');
    const { audit, counts } = opened({ dataDir });
    for (let i = 0; i < 3; i++) audit.write(ENTRY);
    audit.close();
    assert.equal(audit.lostLines, 3);
    assert.equal(counts.lost, 3);
    const back = opened({ dataDir: folder });
    Object.assign(audit, { path: join(folder, 'audit.log') });
    audit.write(ENTRY);
    audit.close();
    assert.deepEqual(
      back.lines().map(({ event, what }) => [event, what.lines ?? null]),
      [
        ['audit-lines-lost', 3],
        ['token-created', null],
      ],
    );
    assert.equal(audit.lostLines, 0);
  });

  test('has what strangers cause at a bounded rate, with the number of the rest, and nothing of it at any length', () => {
    const { audit, counts, lines } = opened();
    const began = performance.now();
    for (let i = 0; i < 500; i++) {
      audit.writeLimited({ ...ENTRY, event: 'authentication-failed', what: { why: 'x'.repeat(100_000) } });
    }
    audit.close();
    const seconds = (performance.now() - began) / 1000;
    const told = lines();
    assert.ok(told.length <= 30 + 20 * seconds, `${told.length} lines in ${seconds} s`);
    assert.equal(told.length + told.reduce((sum, { suppressed = 0 }) => sum + suppressed, 0), 500);
    assert.ok(counts.suppressed > 0);
    assert.ok(JSON.stringify(told[0]).length < 2_000);
  });

  // Attack: lines of taking and releasing its own EID, by one agent | 100,000 | 5,000 lines and one a second are written, the rest is counted; what
  // others did is still there
  test('attack: push the audit log out of its files', () => {
    const { audit, lines } = opened();
    audit.write(ENTRY);
    for (let i = 0; i < 100_000; i++) {
      const event = i % 2 === 0 ? 'eid-taken' : 'eid-released';
      audit.writeOfAgent({ ...ENTRY, event, who: 'agent 1', what: { eid: '[0]10.77.0.5/32' } });
    }
    audit.writeOfAgent({ ...ENTRY, event: 'eid-taken', who: 'agent 2' });
    audit.close();
    const told = lines();
    assert.equal(told[0]?.event, ENTRY.event);
    assert.equal(told.filter(({ who }) => who === 'agent 2').length, 1);
    const own = told.filter(({ who }) => who === 'agent 1');
    assert.ok(own.length <= 5_100, `${own.length} lines`);
    assert.equal(own.length + own.reduce((sum, { suppressed = 0 }) => sum + suppressed, 0), 100_000);
  });
});
