/**
 * `stayput demo`: the main job on this machine, with real programs in network namespaces.
 *
 * Exit code 0 only if every download was right and no TCP connection was reset or died. What is told while it runs
 * goes to stdout, with `--json` to stderr, so that stdout holds exactly one JSON object.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Command, Option } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { missingForDemo } from '../../runtime/preflight.ts';
import type { Narrator, SceneName, SceneResult } from '../../test/lab/scenes.ts';
import type { World } from '../../test/lab/world.ts';
import { needsCheckout } from '../checkout.ts';
import { formatDuration, printTable } from '../output.ts';

interface DemoOptions {
  readonly scene: string;
  /** Milliseconds. */
  readonly rtt: string;
  readonly json?: true;
  readonly keep?: true;
}

/** Set for the run inside the user namespace. */
const INSIDE = 'STAYPUT_DEMO_IN_USER_NAMESPACE';
const MAIN = fileURLToPath(new URL('../main.js', import.meta.url));

export function registerDemoCommand(program: Command): void {
  const command = program
    .command('demo')
    .description(
      'Show on this machine that connections outlive a roam, a move and crashes (network namespaces, real programs).',
    )
    .argument('[scene]', 'the same as --scene')
    .addOption(new Option('--scene <name>', 'roam, move, crash or all').default('all'))
    .addOption(
      new Option('--rtt <ms>', 'round trip between two clouds, 0 (as fast as the machine) to 1000').default('1'),
    )
    .option('--json', 'print exactly one JSON object on stdout')
    .option('--keep', 'leave everything running at the end, until Ctrl-C, to look around')
    .action(async (scene: string | undefined, options: DemoOptions) => {
      process.exitCode = await demo({ ...options, scene: scene ?? options.scene });
    });
  needsCheckout(command);
}

async function demo(options: DemoOptions): Promise<number> {
  // The lab is much code that no other command needs.
  const { SCENES, isSceneName } = await import('../../test/lab/scenes.ts');
  const all = Object.keys(SCENES).filter(isSceneName);
  const names = options.scene === 'all' ? all : all.filter((name) => name === options.scene);
  if (names.length === 0) throw new UsageError(`there is no scene ${options.scene}: try ${all.join(', ')} or all`);
  if (!/^\d{1,4}(\.\d{1,3})?$/.test(options.rtt) || Number(options.rtt) > 1000) {
    throw new UsageError(`--rtt: "${options.rtt}" is not a number of milliseconds from 0 to 1000`);
  }
  const missing = missingForDemo();
  if (missing.length > 0) throw new UsageError(missing.join('\nstayput: '));
  const teller = new Teller(options.json === true ? process.stderr : process.stdout);
  await ensureDataplaneBuilt((line) => teller.raw(line));
  if (process.getuid?.() !== 0) return await inUserNamespace(options);
  return await perform(names, options, teller);
}

/** Plays again as root of a user namespace, which may make network namespaces. */
function inUserNamespace(options: DemoOptions): Promise<number> {
  if (process.env[INSIDE] !== undefined) throw new UsageError('the user namespace gives no root: run the demo as root');
  const again = [
    ...[process.execPath, MAIN, 'demo', '--scene', options.scene],
    ...['--rtt', options.rtt],
    ...(options.json === true ? ['--json'] : []),
    ...(options.keep === true ? ['--keep'] : []),
  ];
  // `ip netns` keeps its namespaces in /run, where this user may not write.
  const prepare = 'mount -t tmpfs tmpfs /run && exec "$@"';
  const child = spawn(
    'unshare',
    ['--user', '--map-root-user', '--mount', '--net', 'sh', '-c', prepare, 'sh', ...again],
    {
      stdio: 'inherit',
      env: { ...process.env, [INSIDE]: '1' },
    },
  );
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.once('error', (cause) => reject(new UsageError(`unshare: ${cause.message}`, { cause })));
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

async function perform(names: readonly SceneName[], options: DemoOptions, teller: Teller): Promise<number> {
  const { play, SCENES } = await import('../../test/lab/scenes.ts');
  const { World } = await import('../../test/lab/world.ts');
  teller.say('building the world');
  const world = await World.build({
    name: 'demo',
    workload: names.includes('move'),
    internet: { roundTripMs: Number(options.rtt) },
    say: (what) => teller.say(what),
  });
  const results: SceneResult[] = [];
  try {
    teller.raw(picture(world));
    for (const name of names) {
      teller.heading(`${name}: ${SCENES[name]}`);
      const result = await play(name, world, teller);
      teller.say(verdict(result));
      results.push(result);
    }
    const ok = results.every((result) => result.ok);
    if (options.json === true) process.stdout.write(`${JSON.stringify({ scenes: results, ok })}\n`);
    else summarise(results, ok);
    if (options.keep === true) await lookAround(world, teller);
    return ok ? 0 : 1;
  } finally {
    await world.close();
  }
}

class Teller implements Narrator {
  private readonly stream: NodeJS.WriteStream;
  private readonly started = performance.now();
  private live = false;

  constructor(stream: NodeJS.WriteStream) {
    this.stream = stream;
  }

  say(what: string): void {
    this.line(`${((performance.now() - this.started) / 1000).toFixed(1).padStart(6)} s  ${what}`);
  }

  heading(what: string): void {
    this.line(`\n=== ${what} ===`);
  }

  raw(text: string): void {
    this.line(text);
  }

  /** One line that is written over again on a terminal; elsewhere nothing. */
  watch(traffic: Parameters<Narrator['watch']>[0]): void {
    if (!this.stream.isTTY) return;
    const { beats, numbers } = traffic;
    if (beats === undefined || numbers === undefined) return;
    const megabytes = (traffic.downloadedBytes / 1e6).toFixed(1);
    this.stream.write(
      `\r\x1b[K          ${megabytes} MB downloaded, ${beats.received} heartbeats, longest gap ${beats.longestGapMs} ms, ` +
        `${numbers.received} of ${numbers.sent} datagrams echoed`,
    );
    this.live = true;
  }

  private line(text: string): void {
    this.stream.write(`${this.live ? '\r\x1b[K' : ''}${text}\n`);
    this.live = false;
  }
}

function verdict(result: SceneResult): string {
  const download = result.sha256Match ? `right after ${result.downloadSeconds} s` : 'WRONG';
  const connection = result.tcpAlive ? 'alive' : 'DEAD';
  return (
    `connection ${connection}, longest gap ${formatDuration(result.tcpLongestGapMs)}, resets ${result.tcpResets}, ` +
    `download ${download}, datagrams lost ${result.udpLost} of ${result.udpSent}`
  );
}

function summarise(results: readonly SceneResult[], ok: boolean): void {
  process.stdout.write('\n');
  printTable(
    [
      ['name', 'SCENE'],
      ['gap', 'LONGEST TCP GAP'],
      ['cable', 'CABLE AWAY'],
      ['tcpResets', 'RESETS'],
      ['udpSent', 'UDP SENT'],
      ['udpLost', 'LOST'],
      ['udpDuplicated', 'DUPLICATED'],
      ['sha', 'SHA-256'],
      ['agent', 'AGENT RSS'],
      ['dataplane', 'DATA PLANE RSS'],
      ['mapServer', 'MAP SERVER RSS'],
    ],
    results.map((result) => ({
      ...result,
      gap: `${result.tcpLongestGapMs.toFixed(1)} ms`,
      cable: result.cableAwayMs === null ? null : `${result.cableAwayMs.toFixed(1)} ms`,
      sha: result.sha256Match ? 'right' : 'WRONG',
      agent: `${result.rssMb.agent} MB`,
      dataplane: `${result.rssMb.dataplane} MB`,
      mapServer: `${result.rssMb.mapServer} MB`,
    })),
  );
  const rtt = results[0]?.underlayRttMs ?? Number.NaN;
  process.stdout.write(
    `\nUnderlay RTT ${rtt.toFixed(3)} ms between the clouds, by ping. The heartbeat sends every 10 ms, so no gap is shorter.\n` +
      `${ok ? 'All connections stayed up and all bytes are right.' : 'FAILED: see the table.'}\n`,
  );
}

async function lookAround(world: World, teller: Teller): Promise<void> {
  teller.raw('\nEverything is still running. From another terminal, as root:');
  for (const { host, socket } of world.overlay.agents.values()) {
    teller.raw(`  ip netns exec ${host.namespace} env STAYPUT_SOCKET=${socket} node ${MAIN} status`);
  }
  teller.raw('Ctrl-C ends it and removes everything.');
  // Ended by the lab's own signal handlers.
  await new Promise(() => setInterval(() => {}, 1 << 30));
}

function picture(world: World): string {
  const address = (name: string): string => world.overlay.agents.get(name)?.at.address4 ?? '';
  const workload = world.overlay.agents.has('host-a');
  const left = (text: string): string => text.padEnd(34);
  const lines = [
    `  ${left('cloud a')}cloud b`,
    `  ${left(`vm      10.77.0.10  ${address('vm')}`)}(vm after the roam)`,
    ...(workload
      ? [
          `  ${left(`host-a  10.77.0.21  ${address('host-a')}`)}host-b  10.77.0.22  ${address('host-b')}`,
          `  ${left('  └ db  10.77.0.20')}  └ (db after the move)`,
        ]
      : []),
    `       \\                                 /`,
    `        +---------- internet -----------+`,
    `                      |`,
    `                   cloud c`,
    `  client  10.77.0.1   ${address('client')}`,
    `  map server          ${new URL(world.overlay.mapServer.url).host}`,
  ];
  return `\n${lines.join('\n')}\n`;
}
