/**
 * Keys, the pre-shared key and join tokens stay where they belong. All daemons log all they can while hosts join, talk,
 * roam into errors and are revoked; then everything that was written or can be asked is searched for each secret.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { Agent, Overlay } from '../lab/overlay.ts';
import { requireLab } from './require.ts';

requireLab();

const STAYPUT = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

describe('secrets', () => {
  let lab: Lab;
  let overlay: Overlay;
  let stranger: Attachment;
  const agents: Agent[] = [];
  /** By what it is. */
  const secrets = new Map<string, string>();
  const outputs = new Map<string, string>();

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'secrets' });
    const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    overlay = await Overlay.start(await internet.attach('mapserver', 'a'), {
      dataplane,
      mapServerConfig: { logLevel: 'trace' },
    });
    stranger = await internet.attach('stranger', 'a');
    for (const [i, name] of ['first', 'second'].entries()) {
      const at = await internet.attach(name, 'a');
      agents.push(await joinWithToken(at, dataplane, `10.77.0.${i + 1}/32`, name));
    }
  });
  after(() => lab?.close());

  async function joinWithToken(at: Attachment, dataplane: string, eid: string, name: string): Promise<Agent> {
    const agent = new Agent(at, dataplane, { eids: [eid], names: [name], config: { logLevel: 'trace' } });
    agent.dataplane.install([dataplane, '--socket', agent.dataplaneSocket, '--log', 'trace']);
    const token = await overlay.mapServer.createToken([eid], [name]);
    keepToken(`token of ${name}`, token);
    await joinHost(at, agent.stateDir, token, ['--eid', eid, '--name', name]);
    agent.startDataplane();
    agent.start();
    await agent.ready();
    return agent;
  }

  /** With the token in a file, as documentation says. */
  async function joinHost(at: Attachment, stateDir: string, token: string, wishes: string[]): Promise<void> {
    const file = join(at.host.dir, 'join-token');
    writeFileSync(file, token, { mode: 0o600 });
    const config = join(at.host.dir, 'join.json');
    writeFileSync(config, JSON.stringify({ stateDir }));
    const argv = [process.execPath, STAYPUT, 'agent', 'join', overlay.mapServer.url, '--token-file', file];
    const { stdout, stderr } = await at.host.exec([...argv, ...wishes, '--config', config], { anyExit: true });
    outputs.set(`join on ${at.host.name} ${outputs.size}`, stdout + stderr);
  }

  function keepToken(what: string, token: string): void {
    const { s } = JSON.parse(Buffer.from(token.slice('stp1.'.length), 'base64url').toString()) as { s: string };
    secrets.set(what, token);
    secrets.set(`secret of the ${what}`, s);
  }

  // Attack: a search for private keys, the pre-shared key and join tokens, as they are and in hex and base64, in all logs
  // at the highest level, all --json output, metrics, the audit log, command lines and environments | every secret in
  // every output | found nowhere; the files that hold them can be read by their owner only
  it('attack: secrets in logs, output, metrics and process lists', async () => {
    const [first, second] = agents;
    assert.ok(first !== undefined && second !== undefined);
    const files = [
      ...agents.map((agent) => join(agent.stateDir, 'identity.json')),
      ...filesBelow(join(overlay.mapServer.host.dir, 'mapserver')).filter((file) => file.endsWith('.json')),
    ];
    for (const file of files) for (const [key, value] of secretsIn(file)) secrets.set(`${key} in ${file}`, value);
    const kinds = [...secrets.keys()].map((key) => key.split(' in ', 1)[0]);
    for (const kind of ['tunnelPrivateKey', 'tlsPrivateKey', 'presharedKey', 'authority.key', 'server.key'])
      assert.ok(
        kinds.some((each) => each?.endsWith(kind.replace('server.', ''))),
        `${kind} among ${kinds.join(', ')}`,
      );

    await first.stayput(['ping', '10.77.0.2', '-c', '3']);
    await first.stayput(['resolve', 'second', '--json']);
    const spent = secrets.get('token of first') ?? '';
    await joinHost(stranger, join(stranger.host.dir, 'agent'), spent, []);
    const unused = await overlay.mapServer.createToken(['10.77.0.9/32'], []);
    keepToken('token that is not granted enough', unused);
    await joinHost(stranger, join(stranger.host.dir, 'agent'), unused, ['--eid', '10.77.0.8/32']);
    await first.stayput(['eid', 'attach', '10.77.0.2/32'], { anyExit: true });
    await second.dataplane.stop();
    second.startDataplane();
    await second.ready();

    for (const args of [['status'], ['eid', 'list'], ['peers'], ['resolve', '10.77.0.2']])
      outputs.set(args.join(' '), (await first.stayput([...args, '--json'], { anyExit: true })).stdout);
    const { mapServer } = overlay;
    for (const args of [
      ['mapserver', 'status'],
      ['mapserver', 'eids'],
      ['mapserver', 'names'],
      ['mapserver', 'audit'],
      ['token', 'list'],
      ['agents', 'list'],
    ])
      outputs.set(args.join(' '), (await mapServer.stayput([...args, '--json'])).stdout);
    for (const [host, port] of [
      [first.host, 9341],
      [mapServer.host, 9342],
    ] as const)
      outputs.set(`metrics ${port}`, (await host.exec(['curl', '-s', `http://127.0.0.1:${port}/metrics`])).stdout);
    outputs.set('audit log', readFileSync(join(mapServer.host.dir, 'mapserver', 'audit.log'), 'utf8'));
    const daemons = [mapServer.daemon, ...agents.flatMap((agent) => [agent.daemon, agent.dataplane])];
    for (const { process: daemon } of daemons) {
      outputs.set(`log of ${daemon.name} ${daemon.pid}`, daemon.output());
      outputs.set(`command line of ${daemon.pid}`, readFileSync(`/proc/${daemon.pid}/cmdline`, 'latin1'));
      outputs.set(`environment of ${daemon.pid}`, readFileSync(`/proc/${daemon.pid}/environ`, 'latin1'));
    }
    assert.ok([...outputs.values()].join('').length > 20_000, 'there is something to search');
    const found: string[] = [];
    for (const [where, text] of outputs) {
      for (const [what, secret] of secrets)
        if (formsOf(secret).some((form) => text.includes(form))) found.push(`${what}: ${where}`);
    }
    assert.deepEqual(found, []);
    for (const file of files) assert.equal(statSync(file).mode & 0o077, 0, `${file} is for its owner`);
  });
});

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? filesBelow(join(folder, entry.name)) : [join(folder, entry.name)],
  );
}

/** What a state file holds that nobody else may know: of PEM a line from the middle of the key. */
function secretsIn(file: string): [string, string][] {
  const visit = (value: unknown, path: string): [string, string][] => {
    if (typeof value === 'object' && value !== null)
      return Object.entries(value).flatMap(([key, each]) => visit(each, path === '' ? key : `${path}.${key}`));
    if (typeof value !== 'string') return [];
    if (value.includes('PRIVATE KEY')) return [[path, value.split('\n')[1] ?? '']];
    return /(privateKey|presharedKey)$/i.test(path) ? [[path, value]] : [];
  };
  return visit(JSON.parse(readFileSync(file, 'utf8')), '');
}

function formsOf(secret: string): string[] {
  const octets = Buffer.from(secret, 'base64');
  return [
    secret,
    octets.toString('base64'),
    octets.toString('base64url'),
    octets.toString('hex'),
    JSON.stringify([...octets]).slice(1, -1),
  ];
}
