/**
 * How long an honest agent waits for its registration while others do their worst, and what idle sessions cost.
 *
 *   npm run build && node dist/test/mapserver/load.js [--hostile 50] [--seconds 10] [--idle 1000]
 *
 * Map server, hostile agents, idle agents and the honest one are processes of their own on this machine; so on few CPUs
 * the hostile ones take from the map server what they need for themselves.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { adminSocketPath } from '../../mapserver/main.ts';
import { callApi } from '../../runtime/http-api.ts';
import { type MapServerAt, TestAgent, TestOverlay } from './overlay.ts';

interface Place {
  readonly port: number;
  readonly dataDir: string;
}

/** A map server in another process. */
class RemoteOverlay implements MapServerAt {
  readonly port: number;
  private readonly dataDir: string;

  constructor({ port, dataDir }: Place) {
    this.port = port;
    this.dataDir = dataDir;
  }

  async token(grant: object): Promise<string> {
    const target = { socketPath: adminSocketPath(this.dataDir) };
    return ((await callApi(target, 'POST', '/v1/tokens', { body: grant })) as { token: string }).token;
  }

  async ca(): Promise<string> {
    return ((await callApi({ host: '127.0.0.1', port: this.port }, 'GET', '/v1/ca')) as { ca: string }).ca;
  }

  async enrol(body: object, ca?: string): Promise<Awaited<ReturnType<TestOverlay['enrol']>>> {
    const target = { host: '127.0.0.1', port: this.port, ...(ca === undefined ? {} : { ca }) };
    const answer = await callApi(target, 'POST', '/v1/enrol', { body, timeoutMs: 60_000 });
    return answer as Awaited<ReturnType<TestOverlay['enrol']>>;
  }
}

async function serve(): Promise<void> {
  const overlay = new TestOverlay({
    limits: {
      connectionsPerAddress: 30_000,
      connectionsPerSecondAndAddress: 10_000,
      waitingConnectionsPerAddress: 2_000,
      enrolmentsPerSecond: 10_000,
      enrolmentsPerSecondAndSource: 10_000,
    },
  });
  await overlay.start();
  process.send?.({ port: overlay.port, dataDir: overlay.dataDir } satisfies Place);
  process.once('disconnect', () => void overlay.remove().then(() => process.exit(0)));
}

async function enrolled(place: Place, count: number, grant: object): Promise<TestAgent[]> {
  const overlay = new RemoteOverlay(place);
  const token = await overlay.token({ ...grant, uses: count });
  const agents: TestAgent[] = [];
  for (let i = 0; i < count; i++) agents.push(await TestAgent.enrol(overlay, token));
  return agents;
}

/** A third asks, a third registers in bulk what the others of it register as well, a third pings and comes back. */
async function misbehave(place: Place, count: number): Promise<void> {
  const agents = await enrolled(place, count, { eids: ['10.77.128.0/24'] });
  process.send?.('ready');
  await once(process, 'message');
  await Promise.all(
    agents.map(async (agent, i) => {
      const mappings = Array.from({ length: 200 }, (_, eid) => agent.mapping(`10.77.128.${eid}`));
      for (;;) {
        try {
          const { webSocket } = agent;
          if (webSocket?.readyState !== webSocket?.OPEN || webSocket === undefined) await agent.connect();
          for (let n = 0; n < 50 && (agent.webSocket?.bufferedAmount ?? 0) < 1_000_000; n++) {
            if (i % 3 === 0) void agent.subscribe('10.77.0.1').catch(() => {});
            else if (i % 3 === 1) void agent.register(...mappings).catch(() => {});
            else agent.webSocket?.ping();
          }
        } catch {
          // Refused: it tries again.
        }
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }),
  );
}

async function idle(place: Place, count: number): Promise<void> {
  for (const agent of await enrolled(place, count, { names: ['idle'] })) await agent.connect();
  process.send?.('ready');
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

async function measure(hostile: number, seconds: number, idleCount: number): Promise<void> {
  const children: ChildProcess[] = [];
  const start = async (role: string, ...args: readonly (string | number)[]): Promise<[ChildProcess, unknown]> => {
    const child = fork(fileURLToPath(import.meta.url), ['--role', role, ...args.map(String)]);
    children.push(child);
    return [child, (await once(child, 'message'))[0]];
  };
  try {
    const [server, place] = (await start('serve')) as [ChildProcess, Place];
    const common = ['--port', place.port, '--data', place.dataDir];
    const [honest] = await enrolled(place, 1, { eids: ['10.77.0.1/32'] });
    if (honest === undefined) return;
    await honest.connect();
    describe('alone', await latencies(honest, seconds));
    const [crowd] = await start('misbehave', ...common, '--count', hostile);
    crowd.send('go');
    describe(`beside ${hostile} hostile agents`, await latencies(honest, seconds));
    crowd.kill();
    await once(crowd, 'exit');
    const before = residentOctets(server);
    const started = performance.now();
    await start('idle', ...common, '--count', idleCount);
    const took = (performance.now() - started) / 1000;
    const each = (residentOctets(server) - before) / idleCount / 1024;
    console.log(
      `${idleCount} idle sessions: ${each.toFixed(0)} KiB each, enrolled and connected in ${took.toFixed(0)} s`,
    );
    describe(`beside ${idleCount} idle sessions`, await latencies(honest, seconds));
    honest.close();
  } finally {
    for (const child of children) if (child.connected) child.disconnect();
  }
}

const { values } = parseArgs({
  options: {
    hostile: { type: 'string', default: '50' },
    seconds: { type: 'string', default: '10' },
    idle: { type: 'string', default: '1000' },
    role: { type: 'string', default: 'measure' },
    port: { type: 'string', default: '0' },
    data: { type: 'string', default: '' },
    count: { type: 'string', default: '0' },
  },
});
const place: Place = { port: Number(values.port), dataDir: values.data };
if (values.role !== 'measure' && values.role !== 'serve') process.once('disconnect', () => process.exit(0));
switch (values.role) {
  case 'serve':
    await serve();
    break;
  case 'misbehave':
    await misbehave(place, Number(values.count));
    break;
  case 'idle':
    await idle(place, Number(values.count));
    break;
  default:
    await measure(Number(values.hostile), Number(values.seconds), Number(values.idle));
}
