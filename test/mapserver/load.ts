/**
 * How long an honest agent waits for its registration while others do their worst and thousands have sessions, and what
 * these cost.
 *
 *   npm run build && node dist/test/mapserver/load.js [--hostile 50] [--seconds 10] [--idle 1000]
 *
 * Map server, hostile agents, idle agents and the honest one are processes of their own on this machine; so on few CPUs
 * the hostile ones take from the map server what they need for themselves. The limits are those of the shipped
 * configuration: agents come from many loopback addresses, each with as many sessions as one address may have. The
 * agents are enrolled before the map server starts (`fleet.ts`). With `node --cpu-prof` each process says where its time went.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Counts, honestAgent, idle, misbehave, type Place, serve } from './load-processes.ts';
import type { TestAgent } from './overlay.ts';

async function measure({ hostile, idle: idleCount }: Counts, seconds: number): Promise<void> {
  const openFiles = Number(/^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]);
  if (openFiles < idleCount + SPARE_FILES) {
    throw new Error(`${openFiles} open files are too few: raise the hard limit ("ulimit -n")`);
  }
  const children: ChildProcess[] = [];
  const start = async (role: string, ...args: readonly string[]): Promise<[ChildProcess, unknown]> => {
    const child = fork(fileURLToPath(import.meta.url), ['--role', role, ...args]);
    children.push(child);
    return [child, await saidBy(child)];
  };
  try {
    const numbers = ['--hostile', String(hostile), '--idle', String(idleCount)];
    const [server, where] = (await start('serve', ...numbers)) as [ChildProcess, Place];
    const at = ['--place', JSON.stringify(where)];
    const honest = await honestAgent(where);
    const [crowd] = await start('misbehave', ...at);
    const round = async (what: string, others: number): Promise<void> => {
      describe(`${what}, alone`, await latencies(honest, seconds));
      if (others === 0) return;
      crowd.send('go');
      describe(`${what}, beside ${others} hostile agents`, await latencies(honest, seconds));
      crowd.send('rest');
      await saidBy(crowd);
    };
    await round('no other session', hostile);
    if (idleCount > 0) {
      const before = residentOctets(server);
      const [guests] = await start('idle', ...at);
      const began = performance.now();
      const cpu = cpuSeconds(server);
      guests.send('connect');
      const waited: number[] = [];
      let all = false;
      const connected = saidBy(guests).finally(() => {
        all = true;
      });
      while (!all) waited.push(...(await latencies(honest, 0.5)));
      const again = Number(await connected);
      const took = (performance.now() - began) / 1000;
      console.log(
        `${idleCount} sessions accepted in ${took.toFixed(1)} s, with ${(cpuSeconds(server) - cpu).toFixed(1)} s of CPU of the map server, ${again} of them not at once`,
      );
      describe(
        'while they come',
        waited.sort((a, b) => a - b),
      );
      const idleCpu = await share(server, seconds);
      const each = (residentOctets(server) - before) / idleCount / 1024;
      console.log(
        `${idleCount} idle sessions: ${each.toFixed(0)} KiB of memory each, ${idleCpu.toFixed(0)} % of a CPU`,
      );
      await round(`${idleCount} idle sessions`, hostile);
      guests.send('count');
      console.log(`idle sessions that were lost: ${idleCount - Number(await saidBy(guests))}`);
    }
    console.log(`limits reached, and what was refused:\n${await refusals(where)}`);
    honest.close();
  } finally {
    for (const child of children) if (child.connected) child.disconnect();
  }
}

async function saidBy(child: ChildProcess): Promise<unknown> {
  const ended = new AbortController();
  const exit = once(child, 'exit', ended).then(() => {
    throw new Error('a process of the measurement ended early');
  });
  exit.catch(() => {});
  const [message] = await Promise.race([once(child, 'message', ended), exit]);
  ended.abort();
  return message;
}

/** Milliseconds that each registration took, sorted. */
async function latencies(agent: TestAgent, seconds: number): Promise<number[]> {
  const taken: number[] = [];
  for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
    const started = performance.now();
    await agent.register(agent.mapping('10.77.0.1'));
    taken.push(performance.now() - started);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return taken.sort((a, b) => a - b);
}

function describe(what: string, taken: readonly number[]): void {
  const at = (share: number): string => (taken[Math.floor(share * (taken.length - 1))] ?? Number.NaN).toFixed(1);
  console.log(`${what}: ${taken.length} registrations, median ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`);
}

function residentOctets({ pid }: ChildProcess): number {
  return 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
}

/** User and system, in ticks of 10 ms in `/proc/PID/stat`. */
function cpuSeconds({ pid }: ChildProcess): number {
  const [, fields = ''] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ');
  const [user = '', system = ''] = fields.split(' ').slice(11, 13);
  return (Number(user) + Number(system)) / 100;
}

/** Of one CPU, in per cent. */
async function share(child: ChildProcess, seconds: number): Promise<number> {
  const before = cpuSeconds(child);
  const started = performance.now();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return (100_000 * (cpuSeconds(child) - before)) / (performance.now() - started);
}

async function refusals({ metricsUrl }: Place): Promise<string> {
  const lines = (await (await fetch(metricsUrl)).text()).split('\n');
  return lines.filter((line) => /^stayput_mapserver_(limit_hits|rejected)_total\{.*\} [^0]/.test(line)).join('\n');
}

/** For what a process needs besides the sessions. */
const SPARE_FILES = 500;

const { values } = parseArgs({
  options: {
    hostile: { type: 'string', default: '50' },
    seconds: { type: 'string', default: '10' },
    idle: { type: 'string', default: '1000' },
    role: { type: 'string', default: 'measure' },
    place: { type: 'string', default: '{}' },
  },
});
const counts: Counts = { hostile: Number(values.hostile), idle: Number(values.idle) };
const place = JSON.parse(values.place) as Place;
if (values.role !== 'measure' && values.role !== 'serve') process.once('disconnect', () => process.exit(0));
switch (values.role) {
  case 'serve':
    await serve(counts);
    break;
  case 'misbehave':
    await misbehave(place);
    break;
  case 'idle':
    await idle(place);
    break;
  default:
    await measure(counts, Number(values.seconds));
}
