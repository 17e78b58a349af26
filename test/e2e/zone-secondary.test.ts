/** The zone as ordinary programs see it: `dig` reads and transfers it, NSD serves it and follows every change. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { freePort, Nsd } from '../lab/nsd.ts';
import { waitFor } from '../lab/wait.ts';
import { type TestAgent, TestOverlay } from '../mapserver/overlay.ts';
import { requireLab } from './require.ts';

requireLab();

const ZONE = 'stayput.internal';
const OFTEN = { intervalMs: 10 };
const KEY = { name: 'xfr.test', algorithm: 'hmac-sha256', secret: Buffer.alloc(32, 7).toString('base64') };

describe('an ordinary name server as secondary', () => {
  const dir = mkdtempSync(join(tmpdir(), 'stayput-zone-'));
  const keyFile = join(dir, 'xfr.key');
  let nsd: Nsd;
  let overlay: TestOverlay;
  let agent: TestAgent;
  let port: string;

  before(async () => {
    writeFileSync(keyFile, `key "${KEY.name}" { algorithm ${KEY.algorithm}; secret "${KEY.secret}"; };\n`, {
      mode: 0o600,
    });
    nsd = new Nsd(await freePort());
    port = String(await freePort());
    overlay = new TestOverlay({
      zone: {
        listen: [`127.0.0.1:${port}`],
        nameServers: ['ns1.example.org'],
        keyFiles: [keyFile],
        transferKeys: [KEY.name],
        updates: [{ key: KEY.name, names: ['_sql._tcp', '*.web', 'db'] }],
        notify: [{ address: `127.0.0.1:${nsd.port}`, key: KEY.name }],
      },
    });
    await overlay.start();
    agent = await overlay.agent({ eids: ['10.77.0.0/24'], names: ['*'] });
    await agent.register(agent.mapping('10.77.0.5', { names: ['db'] }), agent.mapping('db'));
    const others = Array.from({ length: 12 }, (_, i) => `10.77.0.${100 + i}`);
    await agent.register(...others.map((eid, i) => agent.mapping(eid, { names: [`other-${i}`] })));
    nsd.start({ names: [ZONE, '77.10.in-addr.arpa'], primary: `127.0.0.1:${port}`, key: KEY });
    await waitFor('the zone', async () => (await fromSecondary(`db.${ZONE}`, 'A')) === '10.77.0.5');
    await waitFor('its reverse', async () => (await fromSecondary('-x', '10.77.0.5')) === `db.${ZONE}.`);
  });
  after(async () => {
    await nsd?.close();
    await overlay?.remove();
    rmSync(dir, { recursive: true, force: true });
  });

  /** What the primary says, with the key. */
  const fromPrimary = (...args: string[]): Promise<string> => dig('-p', port, '-k', keyFile, ...args);
  const fromSecondary = (...args: string[]): Promise<string> => dig('-p', String(nsd.port), '+short', ...args);

  /** Finds the zone by asking for its SOA, as it does by itself. */
  async function nsupdate(...commands: string[]): Promise<void> {
    const child = promisify(execFile)('nsupdate', ['-k', keyFile]);
    child.child.stdin?.end(`server 127.0.0.1 ${port}\n${commands.join('\n')}\nsend\n`);
    await child;
  }

  test('the secondary answers with authority, also for what is not there', async () => {
    const reply = await dig('-p', String(nsd.port), `none.${ZONE}`, 'A');
    assert.match(reply, /status: NXDOMAIN/);
    assert.match(reply, /flags: qr aa/);
  });

  test('what registers is served, and what goes is gone', async (t) => {
    const came = performance.now();
    const [registered] = await agent.register(agent.mapping('10.77.0.6', { names: ['web'] }));
    await waitFor('the new name', async () => (await fromSecondary(`web.${ZONE}`, 'A')) === '10.77.0.6', OFTEN);
    t.diagnostic(`served ${Math.round(performance.now() - came)} ms after it was registered`);
    await waitFor('its reverse name', async () => (await fromSecondary('-x', '10.77.0.6')) === `web.${ZONE}.`, OFTEN);
    assert.ok(registered);
    const went = performance.now();
    await agent.register({ ...agent.mapping('10.77.0.6'), generation: registered.generation, ttl: 0, locators: [] });
    await waitFor('the name to be gone', async () => (await fromSecondary(`web.${ZONE}`, 'A')) === '', OFTEN);
    t.diagnostic(`gone ${Math.round(performance.now() - went)} ms after it was given up`);
  });

  test('a change reaches the secondary as a difference', async () => {
    const before = Number((await fromPrimary('+short', ZONE, 'SOA')).split(' ')[2]);
    await agent.register(agent.mapping('10.77.0.7', { names: ['seven'] }));
    const after = await waitFor('a new serial', async () => {
      const serial = Number((await fromPrimary('+short', ZONE, 'SOA')).split(' ')[2]);
      return serial > before && serial;
    });
    const lines = (await fromPrimary('+noall', '+answer', ZONE, `IXFR=${before}`)).split('\n').filter(Boolean);
    assert.deepEqual(
      lines.map((line) => line.split(/\s+/).slice(3, 5).join(' ')).map((text) => text.replace(/ ns1.*/, '')),
      ['SOA', 'SOA', 'SOA', 'A 10.77.0.7', 'SOA'],
    );
    await waitFor('the secondary to have it', async () => (await fromSecondary(`seven.${ZONE}`, 'A')) === '10.77.0.7');
    assert.equal(Number((await fromSecondary(ZONE, 'SOA')).split(' ')[2]), after);
  });

  test('dig takes the whole zone with the key, and nothing without or with another', async () => {
    const lines = (await fromPrimary('+noall', '+answer', ZONE, 'AXFR')).split('\n');
    assert.match(lines[0] ?? '', /SOA\tns1.example.org. /);
    assert.match(lines[1] ?? '', /NS\tns1.example.org./);
    assert.ok(lines.some((line) => /^db\.stayput\.internal\.\s+30\s+IN\s+A\s+10\.77\.0\.5/.test(line)));
    assert.match(await dig('-p', port, ZONE, 'AXFR'), /Transfer failed/);
    const other = `hmac-sha256:${KEY.name}:${Buffer.alloc(32, 8).toString('base64')}`;
    assert.match(await dig('-p', port, '-y', other, ZONE, 'AXFR'), /Transfer failed|BADSIG|NOTAUTH/);
  });

  test('nsupdate sets and deletes records, and the secondary follows', async () => {
    const srv = `_sql._tcp.${ZONE}`;
    await nsupdate(
      `prereq nxdomain ${srv}`,
      `update add ${srv} 60 SRV 1 2 5432 db.${ZONE}`,
      `update add ${srv} 60 TXT "a b"`,
    );
    await waitFor('the SRV record', async () => (await fromSecondary(srv, 'SRV')) === `1 2 5432 db.${ZONE}.`);
    assert.equal(await fromSecondary(srv, 'TXT'), '"a b"');
    assert.equal(await fromPrimary('+short', srv, 'TXT'), '"a b"');
    await assert.rejects(nsupdate(`prereq nxdomain ${srv}`, `update add ${srv} 60 TXT "c"`), /YXDOMAIN/);
    await assert.rejects(nsupdate(`update add foreign.${ZONE} 60 TXT "c"`), /REFUSED/);
    await assert.rejects(nsupdate(`update delete db.${ZONE} A`), /REFUSED/);
    await nsupdate(`update delete ${srv}`);
    await waitFor('the record to be gone', async () => (await fromSecondary(srv, 'SRV')) === '');
    const lines = readFileSync(join(overlay.dataDir, 'audit.log'), 'utf8').split('\n');
    const results = lines.filter((line) => line.includes('"zone-updated"')).map((line) => JSON.parse(line).result);
    assert.deepEqual(results, ['ok', 'YXDOMAIN', 'REFUSED', 'REFUSED', 'ok']);
  });

  test('after a restart of the map server the serial has grown, and the secondary follows', async () => {
    const before = Number((await fromSecondary(ZONE, 'SOA')).split(' ')[2]);
    await overlay.stop();
    await overlay.start();
    const now = Number((await fromPrimary('+short', ZONE, 'SOA')).split(' ')[2]);
    assert.ok(now > before, `${now} after ${before}`);
    await waitFor(
      'the secondary to follow',
      async () => Number((await fromSecondary(ZONE, 'SOA')).split(' ')[2]) === now,
    );
  });
});

async function dig(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('dig', ['@127.0.0.1', '+time=2', '+tries=1', ...args]).catch(
    (error: { stdout: string }) => error,
  );
  return stdout.trim();
}
