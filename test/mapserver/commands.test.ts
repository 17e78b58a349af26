/** What people type, with the program itself. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { TestAgent, TestOverlay } from './overlay.ts';

const PROGRAM = fileURLToPath(import.meta.url.replace(/test\/mapserver\/commands\.test\.(ts|js)$/, 'cli/main.$1'));

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

describe('stayput mapserver init', () => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-init-'));
  const dataDir = join(folder, 'data');
  after(() => rmSync(folder, { recursive: true, force: true }));
  const init = (...more: string[]) => stayput('mapserver', 'init', '--data-dir', dataDir, ...more);
  const usual = ['--host', 'ms.example', '192.0.2.1', '--overlay', '10.77.0.0/16', 'fd00:77::/48'];

  test('refuses overlays that cannot be, and says why in one line', async () => {
    for (const prefix of [
      '0.0.0.0/0',
      '::/0',
      '127.0.0.0/8',
      '169.254.0.0/16',
      'fe80::/10',
      '224.0.0.0/8',
      '10.77.0.1/16',
      'x',
    ]) {
      const ended = await init('--host', 'ms.example', '--overlay', prefix);
      assert.equal(ended.code, 2, prefix);
      assert.equal(ended.stderr.trim().split('\n').length, 1, ended.stderr);
    }
    assert.throws(() => statSync(dataDir));
  });

  test('makes the files, for their owner alone', async () => {
    const ended = await init(...usual, '--json');
    assert.equal(ended.code, 0, ended.stderr);
    const made = JSON.parse(ended.stdout);
    assert.equal(made.created, true);
    assert.equal(made.url, 'https://ms.example:4342');
    assert.match(made.fingerprint, /^[0-9a-f]{64}$/);
    assert.equal(statSync(dataDir).mode & 0o777, 0o700);
    for (const file of ['overlay.json', 'server-certificate.json']) {
      assert.equal(statSync(join(dataDir, file)).mode & 0o777, 0o600);
    }
  });

  test('changes nothing the second time and says so', async () => {
    const before = readFileSync(join(dataDir, 'overlay.json'), 'utf8');
    const ended = await init(...usual);
    assert.equal(ended.code, 0);
    assert.match(ended.stdout, /initialised already; nothing was changed/);
    assert.equal(readFileSync(join(dataDir, 'overlay.json'), 'utf8'), before);
  });

  test('refuses other values for the same folder, naming the difference', async () => {
    const ended = await init('--host', 'ms.example', '192.0.2.1', '--overlay', '10.78.0.0/16');
    assert.equal(ended.code, 2);
    assert.match(ended.stderr, /initialised already, with overlay 10\.77\.0\.0\/16/);
  });
});

describe('the commands for a running map server', () => {
  const overlay = new TestOverlay();
  before(() => overlay.start());
  after(() => overlay.remove());
  const administer = (...words: string[]) => stayput(...words, '--data-dir', overlay.dataDir);

  test('a token alone goes to stdout, and its join command to stderr', async () => {
    const ended = await administer('token', 'create', '--eid', '10.77.0.5', '--name', 'db');
    assert.equal(ended.code, 0, ended.stderr);
    assert.match(ended.stdout, /^stp1\.[A-Za-z0-9_-]+\n$/);
    assert.match(
      ended.stderr,
      /stayput agent join https:\/\/127\.0\.0\.1:4342 --token-file FILE --eid 10\.77\.0\.5 --name db/,
    );
  });

  test('tokens are listed and revoked', async () => {
    const made = JSON.parse((await administer('token', 'create', '--name', '*.web', '--uses', '3', '--json')).stdout);
    assert.equal((await administer('token', 'revoke', made.id)).code, 0);
    const tokens: { id: string; state: string }[] = JSON.parse((await administer('token', 'list', '--json')).stdout);
    assert.equal(tokens.find(({ id }) => id === made.id)?.state, 'revoked');
    const unknown = await administer('token', 'revoke', 'nonsense');
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /^stayput: there is no token nonsense\n$/);
  });

  test('a token for nothing, for what is outside of the overlay or with nonsense in it is refused', async () => {
    for (const words of [
      [],
      ['--eid', '192.0.2.1'],
      ['--eid', '10.77.0.5/24'],
      ['--name', 'a.*.b'],
      ['--name', 'db', '--uses', '0'],
      ['--name', 'db', '--expires', 'soon'],
    ]) {
      const ended = await administer('token', 'create', ...words);
      assert.equal(ended.code, 2, `${words.join(' ')}: ${ended.stderr}`);
      assert.equal(ended.stderr.trim().split('\n').length, 1);
      assert.equal(ended.stdout, '');
    }
  });

  test('agents, EIDs and names are listed, and an agent is revoked', async () => {
    const agent = await overlay.agent({ eids: ['10.77.0.5/32'], names: ['db'] });
    await agent.register(agent.mapping('10.77.0.5', { names: ['db'] }), agent.mapping('db'));
    const eids = await administer('mapserver', 'eids');
    assert.match(eids.stdout, /10\.77\.0\.5\/32 +live +1 +[0-9a-f]{12} +192\.0\.2\.1:4341 +db/);
    assert.match((await administer('mapserver', 'names')).stdout, /db +live +1 +[0-9a-f]{12} +10\.77\.0\.5/);
    const status = JSON.parse((await administer('mapserver', 'status', '--json')).stdout);
    assert.equal(status.sessions, 1);
    assert.equal(status.mappings, 1);
    const revoked = await administer('agents', 'revoke', agent.xtrId.slice(0, 8));
    assert.equal(revoked.code, 0, revoked.stderr);
    const agents: { state: string }[] = JSON.parse((await administer('agents', 'list', '--json')).stdout);
    assert.equal(agents[0]?.state, 'revoked');
  });

  test('who revokes an agent is told that its token lets it join again, and can revoke that too', async () => {
    const text = await overlay.token({ names: ['*.web'], uses: 3 });
    const [left, taken] = [await TestAgent.enrol(overlay, text), await TestAgent.enrol(overlay, text)];
    const told = await administer('agents', 'revoke', left.xtrId);
    assert.match(told.stdout, /still lets hosts join.* \(1 of 3 uses until .*\): stayput token revoke [0-9a-f]{12}\n$/);
    const again = await administer('agents', 'revoke', taken.xtrId, '--with-token');
    assert.match(again.stdout, /is of no use any more \(revoked\)/);
    await assert.rejects(TestAgent.enrol(overlay, text), /this join token was revoked/);
  });

  test('a policy is checked, applied, explained, shown and rolled back', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'stayput-policy-'));
    after(() => rmSync(folder, { recursive: true, force: true }));
    const written = (name: string, text: string): string => {
      const file = join(folder, name);
      writeFileSync(file, text);
      return file;
    };
    const wrong = written('wrong', 'default deny\nallow from @web to any\nallow all\n');
    const refused = await administer('policy', 'check', wrong);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /wrong:2: there is no group "web".*\n.*wrong:3: write "ACTION from/);
    const first = written('first', 'default deny\nallow from 10.77.0.1 to db tcp 80\n');
    assert.match((await administer('policy', 'check', first, '--offline')).stderr, /not checked against a map server/);
    assert.match((await administer('policy', 'check', first)).stderr, /first:2: warning: nobody has registered db/);
    const tried = await administer('policy', 'apply', first, '--dry-run');
    assert.match(tried.stdout, /^\+ {4}1 {2}default deny\n\+ {4}2 .*\nWould become version 1; default deny, 1 rules/);
    assert.equal(JSON.parse((await administer('policy', 'show', '--json')).stdout).version, 0);
    const unruled = await administer('policy', 'explain', '10.77.0.1', 'db');
    assert.deepEqual([unruled.code, unruled.stdout], [0, '=> allowed (there is no policy)\n']);
    const { version, action } = JSON.parse((await administer('policy', 'explain', '10.77.0.1', 'db', '--json')).stdout);
    assert.deepEqual([version, action], [0, 'allow']);
    assert.match((await administer('policy', 'apply', first)).stdout, /Policy 1 holds/);
    assert.match((await administer('policy', 'apply', first)).stdout, /^Nothing to change: this is version 1\n$/);
    const second = written(
      'second',
      'default deny\nallow from 10.77.0.1 to db tcp 81\nexpect deny from 10.77.0.1 to db tcp 80\n',
    );
    const outdated = await administer('policy', 'apply', second, '--if-version', '0');
    assert.equal(outdated.code, 1);
    assert.match(outdated.stderr, /at version 1, not 0/);
    const changed = await administer('policy', 'apply', second, '--json');
    assert.deepEqual(
      JSON.parse(changed.stdout).changes.map(({ sign, line }: { sign: string; line: number }) => `${sign}${line}`),
      ['-2', '+2', '+3'],
    );
    const failing = written('failing', 'default deny\nexpect allow from 10.77.0.1 to db tcp 81\n');
    const unmet = await administer('policy', 'apply', failing);
    assert.equal(unmet.code, 1);
    assert.match(unmet.stderr, /line 2: "expect allow .*": it is denied by default/);
    const asked = await administer('policy', 'explain', '10.77.0.1', 'db', '--protocol', 'tcp', '--port', '81');
    assert.equal(asked.code, 0);
    assert.match(asked.stdout, /allow +line 2: allow from 10\.77\.0\.1 to db tcp 81\n=> allowed \(policy 2\)/);
    assert.equal((await administer('policy', 'explain', '10.77.0.0/24', 'db')).code, 2);
    assert.match((await administer('policy', 'rollback')).stdout, /Policy 3 holds, the same as 1/);
    const shown = await administer('policy', 'show');
    assert.equal(shown.stdout, 'default deny\nallow from 10.77.0.1 to db tcp 80\n');
    assert.match(shown.stderr, /^version 3, applied /);
  });

  test('a second map server on the same folder is refused', async () => {
    const ended = await administer('mapserver', 'run');
    assert.equal(ended.code, 2);
    assert.match(ended.stderr, /another daemon is already running/);
  });
});

test('values of records that are more or less than their option says are refused before anything is asked', async () => {
  for (const [option, value] of [
    ['--weight', '10.77.0.5=1=2'],
    ['--weight', '10.77.0.5'],
    ['--ns', 'ns=10.77.0.5=10.77.0.6'],
    ['--srv', '0 0 80 web more'],
  ] as const) {
    const ended = await stayput('name', 'set', 'web', option, value, '--data-dir', '/nonexistent/stayput');
    assert.deepEqual([ended.code, ended.stderr.includes(`${option}: "${value}" is not`)], [2, true], ended.stderr);
  }
});

test('without a map server there is one clear line', async () => {
  const ended = await stayput('agents', 'list', '--data-dir', '/nonexistent/stayput');
  assert.equal(ended.code, 1);
  assert.match(
    ended.stderr,
    /^stayput: no answer from the map server of \/nonexistent\/stayput: it is not running.*\n$/,
  );
});

test('a folder without an overlay is not run, and the line says what to do', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-empty-'));
  try {
    const ended = await stayput('mapserver', 'run', '--data-dir', folder);
    assert.equal(ended.code, 2);
    assert.match(ended.stderr, /run "stayput mapserver init/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

function stayput(...words: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [PROGRAM, ...words], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}
