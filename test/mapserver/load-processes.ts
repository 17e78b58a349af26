/** The processes of `load.ts` beside the honest agent: the map server, those that misbehave, those that are idle. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openOverlay } from '../../mapserver/shell/overlay-files.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import { enrolFleet, type Member } from './fleet.ts';
import { TestAgent, TestOverlay } from './overlay.ts';

export interface Place {
  readonly port: number;
  readonly metricsUrl: string;
  readonly dataDir: string;
}

export interface Counts {
  readonly hostile: number;
  readonly idle: number;
}

interface Fleet {
  readonly ca: string;
  readonly honest: readonly Member[];
  readonly hostile: readonly Member[];
  readonly idle: readonly Member[];
}

export async function serve({ hostile, idle: idleCount }: Counts): Promise<void> {
  const overlay = new TestOverlay();
  overlay.init();
  const { dataDir } = overlay;
  const now = Date.now();
  const fleet: Fleet = {
    ca: openOverlay(dataDir, now).authority.certificate,
    honest: await enrolFleet(dataDir, 1, { eids: [parseIpPrefix('10.77.0.1/32')] }, now),
    hostile: await enrolFleet(dataDir, hostile, { eids: [parseIpPrefix('10.77.128.0/24')] }, now),
    idle: await enrolFleet(dataDir, idleCount, { names: ['idle'] }, now),
  };
  writeFileSync(join(dataDir, FLEET_FILE), JSON.stringify(fleet), { mode: 0o600 });
  await overlay.start();
  const { port, metricsUrl } = overlay;
  process.send?.({ port, metricsUrl, dataDir } satisfies Place);
  process.once('disconnect', () => void overlay.remove().then(() => process.exit(0)));
}

export async function honestAgent(place: Place): Promise<TestAgent> {
  const [agent] = agents(place, 'honest');
  if (agent === undefined) throw new Error('the fleet has no honest agent');
  await agent.connect();
  return agent;
}

/**
 * After `go`, until `rest`: a third asks, a third registers in bulk what the others of it register as well, a third
 * pings and comes back.
 */
export async function misbehave(place: Place): Promise<void> {
  const crowd = agents(place, 'hostile');
  let active = false;
  let busy: Promise<unknown> = Promise.resolve();
  process.on('message', async (order) => {
    active = order === 'go';
    if (active) busy = Promise.all(crowd.map((agent, i) => burden(agent, i, () => active)));
    else await busy.then(() => process.send?.('rests'));
  });
  process.send?.('ready');
}

async function burden(agent: TestAgent, index: number, active: () => boolean): Promise<void> {
  const mappings = Array.from({ length: 200 }, (_, eid) => agent.mapping(`10.77.128.${eid}`));
  while (active()) {
    try {
      const { webSocket } = agent;
      if (webSocket === undefined || webSocket.readyState !== webSocket.OPEN) {
        await agent.connect({ localAddress: `127.1.0.${1 + index}` });
      }
      for (let n = 0; n < 50 && (agent.webSocket?.bufferedAmount ?? 0) < 1_000_000; n++) {
        if (index % 3 === 0) void agent.subscribe('10.77.0.1').catch(() => {});
        else if (index % 3 === 1) void agent.register(...mappings).catch(() => {});
        else agent.webSocket?.ping();
      }
    } catch {
      // Refused: it tries again.
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  agent.close();
}

/**
 * After `connect`: sessions that ping once a second, as agents do; says how often a connection had to be tried again.
 * `count` asks how many there still are.
 */
export async function idle(place: Place): Promise<void> {
  const guests = agents(place, 'idle');
  process.on('message', async (order) => {
    if (order === 'count') process.send?.(guests.filter(({ closed }) => closed === undefined).length);
    else await connectAll(guests).then((again) => process.send?.(again));
  });
  process.send?.('ready');
}

async function connectAll(guests: readonly TestAgent[]): Promise<number> {
  let next = 0;
  let again = 0;
  const some = async (): Promise<void> => {
    for (;;) {
      const index = next++;
      const guest = guests[index];
      if (guest === undefined) return;
      const localAddress = `127.2.0.${1 + Math.floor(index / SESSIONS_PER_ADDRESS)}`;
      while (!(await connected(guest, localAddress))) again++;
      setInterval(() => guest.webSocket?.ping(), 1_000);
    }
  };
  await Promise.all(Array.from({ length: CONNECTING }, some));
  return again;
}

async function connected(guest: TestAgent, localAddress: string): Promise<boolean> {
  try {
    await guest.connect({ localAddress });
    return true;
  } catch (error) {
    console.log(`a connection failed: ${(error as Error).message}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
    return false;
  }
}

function agents({ dataDir, port }: Place, role: Exclude<keyof Fleet, 'ca'>): TestAgent[] {
  const fleet = JSON.parse(readFileSync(join(dataDir, FLEET_FILE), 'utf8')) as Fleet;
  return fleet[role].map(({ keys, certificate }) => TestAgent.of({ port }, { ...keys, certificate, ca: fleet.ca }));
}

const FLEET_FILE = 'fleet.json';
/** Below `limits.connectionsPerAddress`. */
const SESSIONS_PER_ADDRESS = 500;
/** At a time. */
const CONNECTING = 20;
