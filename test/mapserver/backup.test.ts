/** Backups of a map server that runs, and what comes of them. */
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chownSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { dataDirOf } from '../../cli/map-server-client.ts';
import { readBackup } from '../../mapserver/shell/backup.ts';
import { openOverlay } from '../../mapserver/shell/overlay-files.ts';
import { restoreBackup } from '../../mapserver/shell/restore.ts';
import { finishExchange, PRESENT, type Rename } from '../../mapserver/shell/restore-exchange.ts';
import { packTar, unpackTar } from '../../runtime/tar.ts';
import { TestAgent, TestOverlay } from './overlay.ts';

const PROGRAM = fileURLToPath(import.meta.url.replace(/test\/mapserver\/backup\.test\.(ts|js)$/, 'cli/main.$1'));
const PASSPHRASE = 'correct horse battery';

describe('a backup', () => {
  const overlay = new TestOverlay();
  const target = new TestOverlay();
  const file = join(overlay.dataDir, 'out.backup');
  const passphrase = join(overlay.dataDir, 'passphrase');
  const config = join(overlay.dataDir, 'mapserver.json');
  const tsig = join(overlay.dataDir, 'transfer.key');
  let a: TestAgent;
  let b: TestAgent;
  let revoked: TestAgent;
  let joinedSince: TestAgent;
  let sharedSince: string;
  let token: string;
  let shared: string;

  before(async () => {
    await overlay.start();
    writeFileSync(passphrase, `${PASSPHRASE}\n`);
    writeFileSync(tsig, 'key "k" { algorithm hmac-sha256; secret "c2VjcmV0"; };', { mode: 0o600 });
    writeFileSync(config, JSON.stringify({ dataDir: overlay.dataDir, zone: { keyFiles: [tsig] } }));
    a = await overlay.agent({ eids: ['10.77.0.0/24'] });
    b = await overlay.agent({ eids: ['10.77.0.0/24'] });
    revoked = await overlay.agent({ eids: ['10.77.0.0/24'] });
    await a.register(a.mapping('10.77.0.5'));
    await revoked.register(revoked.mapping('10.77.0.7'));
    token = (await overlay.admin<{ id: string }>('POST', '/v1/tokens', { eids: ['10.77.0.9/32'] })).id;
    shared = await overlay.token({ eids: ['10.77.2.0/24'], uses: 3 });
    await TestAgent.enrol(overlay, shared);
    for (const [name, prefix] of [
      ['paris', '10.50.0.0/16'],
      ['rome', '10.60.0.0/16'],
    ]) {
      const keys = [0, 1].map((keyId) => ({
        keyId,
        secret: Buffer.from(`key ${keyId} of ${name}`).toString('base64'),
      }));
      await overlay.admin('POST', '/v1/sites', { name, prefixes: [{ prefix }], keys });
    }
  });
  afterEach(() => target.stop());
  after(async () => {
    await overlay.remove();
    await target.remove();
  });

  const backup = (...more: string[]) =>
    stayput('mapserver', 'backup', file, '--data-dir', overlay.dataDir, '--config', config, ...more);
  const restore = (...more: string[]) =>
    stayput('mapserver', 'restore', file, '--data-dir', target.dataDir, '--config', config, '--json', ...more);

  const putBack = (rename?: Rename) => {
    const { dataDir } = target;
    const places = { dataDir, configDir: overlay.dataDir, user: 'nobody', force: true, now: Date.now() };
    return restoreBackup(readBackup(file, undefined), rename === undefined ? places : { ...places, rename });
  };

  test('is taken while the map server runs, and is for its owner alone', async () => {
    const ended = await backup('--json');
    assert.equal(ended.code, 0, ended.stderr);
    const { files, encrypted } = JSON.parse(ended.stdout) as {
      files: { name: string; path?: string }[];
      encrypted: boolean;
    };
    assert.equal(encrypted, false);
    assert.deepEqual(
      files.map(({ name, path }) => path ?? name),
      ['data/server-certificate.json', 'data/overlay.json', 'data/store.db', config, tsig],
    );
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.deepEqual(
      readdirSync(overlay.dataDir).filter((name) => name.startsWith('.')),
      [],
    );
    assert.match((await backup()).stderr, /is there already; --force/);
    joinedSince = await overlay.agent({ eids: ['10.77.1.0/24'] });
    sharedSince = (await TestAgent.enrol(overlay, shared)).xtrId;
    assert.equal(joinedSince.closed, undefined, 'the map server goes on');
  });

  test('brings everything back elsewhere, and EIDs stay with those who got them since', async () => {
    await b.register(b.mapping('10.77.0.5'));
    await overlay.admin('DELETE', `/v1/tokens/${token}`);
    const { tokenId } = await overlay.admin<{ tokenId: string }>('DELETE', `/v1/agents/${revoked.xtrId}`, {
      withToken: true,
    });
    await overlay.admin('DELETE', '/v1/sites/paris/keys/0');
    await overlay.admin('DELETE', '/v1/sites/rome');
    await overlay.stop();
    const tomorrow = Date.now() + 86_400_000;
    const last = { time: new Date(tomorrow).toISOString(), event: 'map-server-started', who: 'map server', what: {} };
    writeFileSync(
      join(target.dataDir, 'audit.log'),
      `${readFileSync(join(overlay.dataDir, 'audit.log'), 'utf8')}${JSON.stringify({ ...last, result: 'ok' })}\n`,
    );
    rmSync(config);
    const ended = await restore();
    assert.equal(ended.code, 0, ended.stderr);
    const told = JSON.parse(ended.stdout) as Record<string, string[]>;
    assert.deepEqual(told.written, [config]);
    assert.deepEqual(told.left, [tsig]);
    assert.deepEqual(told.joined, [joinedSince.xtrId, sharedSince], 'who has to join again');
    assert.deepEqual(told.agentsRevoked, [revoked.xtrId]);
    assert.deepEqual(told.tokensRevoked?.toSorted(), [token, tokenId].sort(), 'of those that the backup has');
    assert.deepEqual(told.sitesRemoved, ['rome']);
    assert.deepEqual(told.siteKeysRemoved, [{ site: 'paris', keyId: 0 }]);
    await target.start();
    const { sites } = await target.admin<{ sites: { name: string; keys: { keyId: number }[] }[] }>('GET', '/v1/sites');
    assert.deepEqual(
      sites.map(({ name, keys }) => [name, keys.map(({ keyId }) => keyId)]),
      [['paris', [1]]],
      'who has a key that was removed can register with it no more',
    );
    const at = { overlay: { port: target.port } };
    for (const agent of [a, b, revoked]) Object.assign(agent, at);
    await assert.rejects(revoked.connect(), /403/, 'before anybody had the time to revoke it again');
    const { eids } = await target.admin<{ eids: { eid: string; state: string }[] }>('GET', '/v1/eids');
    assert.equal(eids.find(({ eid }) => eid === '10.77.0.7/32')?.state, 'released');
    await a.connect();
    await b.connect();
    const [answer] = await b.register(b.mapping('10.77.0.5', { generation: 2 as never }));
    assert.deepEqual([answer?.owner, answer?.generation], [b.xtrId, 2]);
    const [next] = await a.register(a.mapping('10.77.0.5'));
    assert.ok(
      (next?.generation ?? 0) > tomorrow,
      'newer than all that the backup cannot know, though the clock is behind',
    );
    const { tokens } = await target.admin<{ tokens: { uses: number; used: number }[] }>('GET', '/v1/tokens');
    assert.equal(tokens.find(({ uses }) => uses === 3)?.used, 2, 'what was used of a token since is used');
    const status = await target.admin<{ restored: { backedUpAt: string } | null }>('GET', '/v1/status');
    assert.ok(status.restored !== null);
  });

  test('is not put back where a map server runs, nor over another one unasked', async () => {
    await target.start();
    assert.match((await restore('--force')).stderr, /is running: stop it first/);
    await target.stop();
    const refused = await restore();
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /has a map server \(store\.db.*--force puts it aside/);
    const ended = await restore('--force');
    assert.equal(ended.code, 0, ended.stderr);
    const { replaced } = JSON.parse(ended.stdout) as { replaced: string };
    assert.ok(existsSync(join(replaced, 'store.db')));
    await target.start();
  });

  test('is put back over a map server that was killed, with the journal of its store', async () => {
    await target.start();
    const journal = ['store.db-wal', 'store.db-shm'];
    for (const name of journal) copyFileSync(join(target.dataDir, name), join(target.dataDir, `kept-${name}`));
    await target.stop();
    for (const name of journal) copyFileSync(join(target.dataDir, `kept-${name}`), join(target.dataDir, name));
    const ended = await restore('--force');
    assert.equal(ended.code, 0, ended.stderr);
    for (const name of ['overlay.json', 'store.db']) assert.ok(existsSync(join(target.dataDir, name)), name);
    await target.start();
  });

  test('is taken with paths as they are given, and writes no file out of the folder of the configuration', async () => {
    const relative = ['--config', 'mapserver.json', '--force', '--json'];
    const taken = await stayputIn(
      overlay.dataDir,
      'mapserver',
      'backup',
      file,
      '--data-dir',
      overlay.dataDir,
      ...relative,
    );
    assert.equal(taken.code, 0, taken.stderr);
    rmSync(config);
    const elsewhere = ['--config', '/nowhere/mapserver.json', '--force', '--json'];
    const ended = await stayput('mapserver', 'restore', file, '--data-dir', target.dataDir, ...elsewhere);
    assert.equal(ended.code, 0, ended.stderr);
    assert.deepEqual((JSON.parse(ended.stdout) as { elsewhere: string[] }).elsewhere, [config]);
    assert.equal(existsSync(config), false);
    assert.equal((await restore('--force')).code, 0);
    assert.ok(existsSync(config));
  });

  test('is encrypted with a passphrase, and opened by no other', async () => {
    assert.equal((await backup('--force', '--passphrase-file', passphrase)).code, 0);
    assert.equal(readFileSync(file).includes('overlay'), false);
    assert.match((await restore('--force')).stderr, /is encrypted: give its --passphrase-file/);
    const other = join(overlay.dataDir, 'other');
    writeFileSync(other, 'incorrect horse battery');
    assert.match((await restore('--force', '--passphrase-file', other)).stderr, /the passphrase is another one/);
    assert.equal((await restore('--force', '--passphrase-file', passphrase)).code, 0);
  });

  test('is put back whole or not at all, whichever file cannot be moved', async () => {
    assert.equal((await backup('--force')).code, 0);
    rmSync(config);
    const present = () =>
      readdirSync(target.dataDir)
        .sort()
        .map((name) => [name, statSync(join(target.dataDir, name)).ino]);
    const before = present();
    const restoring = async (failing: number): Promise<boolean> => {
      let moves = 0;
      let failed = false;
      const rename = (from: string, to: string): void => {
        failed ||= moves === failing;
        if (moves++ === failing) throw new Error('EIO');
        renameSync(from, to);
      };
      await putBack(rename).catch((error: Error) => {
        assert.match(error.message, /cannot be written \(EIO\)/);
      });
      return failed;
    };
    let failing = 0;
    while (await restoring(failing)) {
      assert.deepEqual(present(), before, `move ${failing}`);
      assert.equal(existsSync(config), false);
      failing += 1;
    }
    assert.ok(failing >= 6, `${failing} moves`);
    assert.notDeepEqual(present(), before);
  });

  test('is put back whole by whoever comes next, wherever it was cut off', async () => {
    await target.start();
    await target.stop();
    assert.equal((await backup('--force')).code, 0);
    const old = dataFiles(target.dataDir);
    const cuts: string[] = [];
    const cut = (): void => {
      const copy = `${target.dataDir}-cut-${cuts.length}`;
      cpSync(target.dataDir, copy, { recursive: true });
      cuts.push(copy);
    };
    const rename = (from: string, to: string): void => {
      cut();
      renameSync(from, to);
      cut();
    };
    const { replaced } = await putBack(rename);
    const restored = dataFiles(target.dataDir);
    assert.notDeepEqual(restored, old);
    assert.ok(cuts.length >= 10, `${cuts.length} places`);
    for (const [at, copy] of cuts.entries()) {
      assert.ok(existsSync(join(copy, 'overlay.json')), 'or nobody would start the map server');
      openOverlay(copy, Date.now());
      // Before the first move it has not begun.
      assert.deepEqual(dataFiles(copy), at === 0 ? old : restored, `cut off at ${at}`);
      assert.deepEqual(dataFiles(join(copy, basename(replaced ?? ''))), at === 0 ? {} : old, `cut off at ${at}`);
      const left = readdirSync(copy).filter((name) => name.startsWith('.restore') || name === 'restoring.json');
      assert.equal(left.length, at === 0 ? 1 : 0, `cut off at ${at}: ${left.join(' ')}`);
      rmSync(copy, { recursive: true });
    }
    await target.start();
  });

  test('is finished with the rights of who has the folder, not with those of root', {
    skip: process.getuid?.() === 0 ? false : 'needs root',
  }, () => {
    const folder = `${target.dataDir}-of-another`;
    const secrets = `${target.dataDir}-of-root`;
    for (const each of [folder, secrets]) mkdirSync(each, { mode: 0o700 });
    writeFileSync(join(secrets, 'store.db'), 'secret');
    const marker = { staging: '.restore-1-x', replaced: null, names: ['store.db'] };
    symlinkSync(secrets, join(folder, marker.staging));
    writeFileSync(join(folder, 'restoring.json'), JSON.stringify(marker));
    chownSync(folder, 65_534, 65_534);
    assert.throws(() => finishExchange(folder), /of-another: a restore that was cut off cannot be finished \(EACCES/);
    assert.equal(process.geteuid?.(), 0);
    assert.deepEqual([existsSync(join(secrets, 'store.db')), existsSync(join(folder, 'store.db'))], [true, false]);
    for (const each of [folder, secrets]) rmSync(each, { recursive: true });
  });

  test('leaves nothing of the configuration either, when one of its files cannot be written', async () => {
    assert.equal((await backup('--force')).code, 0);
    for (const path of [config, tsig]) rmSync(path);
    const blocked = `${tsig}.${process.pid}.tmp`;
    mkdirSync(blocked);
    const store = join(target.dataDir, 'store.db');
    const before = statSync(store).ino;
    await assert.rejects(putBack());
    assert.deepEqual([config, tsig].filter(existsSync), []);
    assert.equal(statSync(store).ino, before);
    rmSync(blocked, { recursive: true });
    const { written } = await putBack();
    assert.deepEqual(written, [config, tsig]);
  });

  test('what a killed command has left is removed by the next', async () => {
    const ended = spawnSync(process.execPath, ['--version']);
    const left = ['backup', 'restore'].map((purpose) => join(overlay.dataDir, `.${purpose}-${ended.pid}-abc123`));
    const working = join(overlay.dataDir, `.backup-${process.pid}-abc123`);
    for (const folder of [...left, working]) mkdirSync(folder);
    writeFileSync(join(left[0] ?? '', 'store.db'), 'secrets');
    assert.equal((await backup('--force')).code, 0);
    assert.deepEqual(left.filter(existsSync), []);
    assert.ok(existsSync(working), 'of one that is at work');
    rmSync(working, { recursive: true });
  });

  test('is taken of the data folder that the configuration names', async () => {
    writeFileSync(config, JSON.stringify({ dataDir: overlay.dataDir }));
    const taken = await stayput('mapserver', 'backup', file, '--config', config, '--force', '--json');
    assert.equal(taken.code, 0, taken.stderr);
    const { files } = JSON.parse(taken.stdout) as { files: { name: string }[] };
    assert.ok(files.some(({ name }) => name === 'data/store.db'));
    const looked = await stayput('mapserver', 'doctor', '--config', config, '--json');
    assert.match(looked.stdout, new RegExp(overlay.dataDir));
    writeFileSync(config, JSON.stringify({ dataDir: target.dataDir }));
    const refused = await stayput('mapserver', 'restore', file, '--config', config);
    assert.match(refused.stderr, new RegExp(`${target.dataDir} has a map server`));
    assert.equal(dataDirOf({ config }), target.dataDir);
    assert.equal(dataDirOf({ config, dataDir: '/given' }), '/given');
    for (const text of ['{', '{}', 'null', '{"dataDir": 7}']) {
      writeFileSync(config, text);
      assert.equal(dataDirOf({ config }), '/var/lib/stayput/mapserver');
    }
    writeFileSync(config, JSON.stringify({ dataDir: overlay.dataDir }));
  });

  // Attack: backups that were changed, cut off, or are something else, one of them with a path out of the data folder | 5 | refused in one line; nothing is written
  test('attack: a backup that was tampered with', async () => {
    assert.equal((await backup('--force')).code, 0);
    const good = readFileSync(file);
    const files = unpackTar(gunzipSync(good));
    const change = (name: string, edit: (text: string) => string): Buffer =>
      gzipSync(
        packTar(
          files.map((each) =>
            each.name === name
              ? { name, content: Buffer.from(edit(Buffer.from(each.content).toString('latin1')), 'latin1') }
              : each,
          ),
          0,
        ),
      );
    const kept = readFileSync(join(target.dataDir, 'overlay.json'));
    for (const [bad, why] of [
      [good.subarray(0, good.length / 2), /no backup of a map server/],
      [Buffer.from('hello'), /no backup of a map server/],
      [change('data/overlay.json', (text) => text.replace('10.77', '10.78')), /damaged: data\/overlay\.json/],
      [change('manifest.json', (text) => text.replace('data/overlay.json', 'data/../../x')), /its manifest is wrong/],
      [change('manifest.json', (text) => text.replace('"format": 1', '"format": 2')), /newer version of Stayput/],
    ] as const) {
      writeFileSync(file, bad);
      const ended = await restore('--force');
      assert.equal(ended.code, 1);
      assert.match(ended.stderr, why);
      assert.deepEqual(readFileSync(join(target.dataDir, 'overlay.json')), kept);
    }
  });
});

/** Digests of what makes a map server, by name. */
function dataFiles(folder: string): Record<string, string> {
  const there = PRESENT.filter((name) => existsSync(join(folder, name)));
  const digest = (name: string) =>
    createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex');
  return Object.fromEntries(there.map((name) => [name, digest(name)]));
}

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function stayput(...words: string[]): Promise<Ended> {
  return stayputIn(process.cwd(), ...words);
}

function stayputIn(cwd: string, ...words: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [PROGRAM, ...words], { cwd }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}
