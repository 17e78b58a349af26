/** What `stayput bugreport` takes along, and what it must not. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { generateKeys } from '../../agent/shell/identity.ts';
import { createAuthority } from '../../mapserver/shell/certificate-authority.ts';
import { MARK, Redaction } from '../../runtime/redaction.ts';
import { unpackTar } from '../../runtime/tar.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';

const PROGRAM = fileURLToPath(import.meta.url.replace(/test\/cli\/bugreport\.test\.(ts|js)$/, 'cli/main.$1'));

// Attack: keys, tokens and passphrases planted in state, configuration, logs, and answers of the daemons, before a bug report is made | 9 | none is in the archive; what helps is
test('attack: secrets where a bug report looks', async (t) => {
  const host = await plantedHost(t);
  const ended = await stayput(host.folder, 'bugreport', 'out.tar.gz', ...host.options, '--json');
  assert.equal(ended.code, 0, ended.stderr);
  const archive = join(host.folder, 'out.tar.gz');
  assert.equal(statSync(archive).mode & 0o777, 0o600);
  const files = unpackTar(gunzipSync(readFileSync(archive)));
  const all = files.map(({ content }) => Buffer.from(content).toString('latin1')).join('\n');
  assert.equal(host.secrets.size, 9);
  for (const [what, secret] of host.secrets) {
    assert.ok(!all.includes(secret), `${what} is in the archive`);
    const line = secret.split('\n').find((each) => each.length > 30 && !each.startsWith('-----'));
    if (line !== undefined) assert.ok(!all.includes(line), `a line of ${what} is in the archive`);
  }
  const told = JSON.parse(ended.stdout) as {
    redacted: number;
    parts: { name: string; octets: number; problem: string | null }[];
  };
  assert.ok(told.redacted >= host.secrets.size);
  const text = (name: string): string =>
    Buffer.from(files.find((file) => file.name === `stayput-bugreport/${name}`)?.content ?? []).toString();
  assert.match(text('agent-status.json'), /"registered": true/);
  assert.match(text('agent-config.json'), /"mtu": 1400/);
  assert.match(text('log-stayput-agent.txt'), /agent is running/);
  assert.ok(all.includes(host.tunnelKey), 'public keys help, and are no secrets');
});

// Attack: metrics that never end, where a bug report looks for those of the agent | 1 | 4 MiB are read; the report is made without
test('attack: metrics that never end', async (t) => {
  const folder = temporaryFolder(t);
  const server = createServer((_request, response) => {
    const more = (): void => {
      while (!response.destroyed && response.write('x'.repeat(65_536)));
    };
    response.on('drain', more);
    more();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const config = join(folder, 'agent.json');
  writeFileSync(config, JSON.stringify({ metricsListen: `127.0.0.1:${port}`, stateDir: folder, platform: 'off' }));
  const options = ['--config', config, '--data-dir', join(folder, 'none'), '--socket', join(folder, 'x.sock')];
  const ended = await stayput(folder, 'bugreport', 'out.tar.gz', ...options);
  assert.equal(ended.code, 0, ended.stderr);
  assert.match(ended.stdout, new RegExp(`metrics-127-0-0-1-${port}\\.txt: more than 4194304 octets`));
});

test('a host on which nothing works gives a report that says so', async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'agent.json'), '{ not json');
  const options = [
    '--config',
    join(folder, 'agent.json'),
    '--data-dir',
    join(folder, 'none'),
    '--socket',
    join(folder, 'x.sock'),
  ];
  const ended = await stayput(folder, 'bugreport', 'out.tar.gz', ...options);
  assert.equal(ended.code, 0, ended.stderr);
  assert.match(ended.stdout, /^Wrote out\.tar\.gz: \d+ KiB, \d+ parts/);
  assert.match(ended.stdout, /^ {2}agent-status\.json: cannot be reached/m);
  assert.match(ended.stdout, /Look through it before you hand it on/);
  const names = unpackTar(gunzipSync(readFileSync(join(folder, 'out.tar.gz')))).map(({ name }) => name);
  assert.ok(names.includes('stayput-bugreport/index.json') && names.includes('stayput-bugreport/doctor.json'));
  assert.ok(names.includes('stayput-bugreport/agent-config.json'), 'also a configuration that is wrong');
});

test('secrets are taken out by value, by field and by form', () => {
  const redaction = new Redaction(['hunter2hunter2', 'a\nb\nc-long', 'no']);
  assert.equal(redaction.text('x hunter2hunter2 y'), `x ${MARK} y`);
  assert.equal(redaction.text('{"pem":"a\\nb\\nc-long"}'), `{"pem":"${MARK}"}`);
  assert.equal(redaction.text('no news'), 'no news', 'what is too short is no secret');
  assert.equal(redaction.text('join stp1.AbC-_9 now'), `join stp1.${MARK} now`);
  assert.equal(redaction.text('Authorization: Bearer abc.def'), `Authorization: ${MARK}`);
  assert.equal(redaction.text('key "k" { secret "c2VjcmV0"; };'), `key "k" { secret "${MARK}"; };`);
  assert.deepEqual(redaction.value({ password: 'x', tokenFile: '/etc/t', tokens: 3, in: [{ psk: 'y' }] }), {
    password: MARK,
    tokenFile: '/etc/t',
    tokens: 3,
    in: [{ psk: MARK }],
  });
  assert.ok(redaction.times >= 7);
});

/** Everything that a host with an agent and a map server keeps, and a journal that quotes it. */
async function plantedHost(t: TestContext) {
  const folder = temporaryFolder(t);
  const [stateDir, dataDir, bin] = ['state', 'data', 'bin'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  for (const path of [stateDir, dataDir, bin]) mkdirSync(path);
  const keys = generateKeys();
  const authority = createAuthority('test', Date.now());
  const psk = Buffer.alloc(32, 7).toString('base64');
  const secrets = new Map<string, string>([
    ['the tunnel key', keys.tunnelPrivateKey],
    ['the TLS key', keys.tlsPrivateKey.trim()],
    ['the pre-shared key', psk],
    ['the key of the authority', authority.key.trim()],
    ['a join token', 'stp1.QWxhZGRpbjpvcGVuIHNlc2FtZQ'],
    ['a TSIG secret', 'dHNpZy1zZWNyZXQtb2YtdGhlLXpvbmU='],
    ['the key of a site', 'correct-horse-of-the-site'],
    ['a password in the configuration', 'swordfish-swordfish'],
    ['a passphrase in a log', 'open-sesame-123'],
  ]);
  writeFileSync(join(stateDir, 'identity.json'), JSON.stringify({ ...keys, presharedKey: psk }));
  writeFileSync(join(dataDir, 'overlay.json'), JSON.stringify({ authority, presharedKey: psk }));
  const tsig = join(folder, 'tsig.key');
  writeFileSync(tsig, `key "k" { algorithm hmac-sha256; secret "${secrets.get('a TSIG secret')}"; };`);
  const site = join(folder, 'site.key');
  writeFileSync(site, `${secrets.get('the key of a site')}\n`);
  const socket = join(folder, 'agent.sock');
  const config = join(folder, 'agent.json');
  const mapServers = [{ address: '192.0.2.1', keyFile: site }];
  const password = secrets.get('a password in the configuration');
  writeFileSync(
    config,
    JSON.stringify({ stateDir, socket, mtu: 1400, metricsListen: null, password, lisp: { mapServers } }),
  );
  const serverConfig = join(folder, 'mapserver.json');
  writeFileSync(serverConfig, JSON.stringify({ zone: { keyFiles: [tsig] } }));
  const quoted = [...secrets].map(([what, secret]) => JSON.stringify({ msg: what, value: secret })).join('\n');
  writeFileSync(
    join(folder, 'journal'),
    `agent is running\n${quoted}\npassphrase: ${secrets.get('a passphrase in a log')}\n`,
  );
  writeFileSync(join(dataDir, 'audit.log'), `${quoted.split('\n').slice(0, 8).join('\n')}\n`);
  const journal = readFileSync(join(folder, 'journal'), 'utf8').replace(/\n.*"a passphrase in a log".*\n/, '\n');
  writeFileSync(join(folder, 'journal'), journal);
  writeFileSync(join(bin, 'journalctl'), `#!/bin/sh\ncat ${join(folder, 'journal')}\n`);
  chmodSync(join(bin, 'journalctl'), 0o755);
  const server = createServer((_request, response) =>
    response.end(
      JSON.stringify({ registered: true, tunnelKey: keys.tunnelKey, note: [...secrets.values()].slice(0, 8) }),
    ),
  );
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.after(() => server.close());
  const options = ['--config', config, '--mapserver-config', serverConfig, '--data-dir', dataDir, '--socket', socket];
  return { folder, secrets, options, tunnelKey: keys.tunnelKey };
}

function stayput(folder: string, ...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { ...process.env, PATH: `${join(folder, 'bin')}:${process.env.PATH}` };
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [PROGRAM, ...words],
      { cwd: folder, env, maxBuffer: 1 << 24 },
      (_error, stdout, stderr) => {
        resolve({ code: child.exitCode ?? -1, stdout, stderr });
      },
    );
  });
}
