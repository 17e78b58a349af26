/** The three scenes of the demo: traffic of real programs, something that would normally end it, and the figures. */

import type { Agent } from './overlay.ts';
import { startServer, Traffic, type TrafficResult } from './traffic.ts';
import { pause } from './wait.ts';
import { DB_EID, VM_EID, type World } from './world.ts';

export type SceneName = 'roam' | 'move' | 'crash';

export interface SceneResult extends TrafficResult {
  readonly name: SceneName;
  readonly ok: boolean;
  readonly underlayRttMs: number;
  /** How long the kernel took to replug the cable, which is part of the gap; null where none was. */
  readonly cableAwayMs: number | null;
  readonly rssMb: { readonly agent: number; readonly dataplane: number; readonly mapServer: number };
}

/** What a scene tells while it plays. */
export interface Narrator {
  say(what: string): void;
  /** Called over and over while traffic flows. */
  watch(traffic: Traffic): void;
}

export const SCENES: Readonly<Record<SceneName, string>> = {
  roam: 'the VM gets another address in another cloud',
  move: 'the workload goes from host-a to host-b with its open sockets',
  crash: 'kill -9 of both agents, then of the map server',
};

/** A longer gap of TCP is no handover any more. */
const LONGEST_ACCEPTED_GAP_MS = 2_000;
const DATAGRAMS_PER_SECOND = 500;
const RATE = 4_000_000;

export function isSceneName(name: string): name is SceneName {
  return Object.hasOwn(SCENES, name);
}

export async function play(name: SceneName, world: World, narrator: Narrator): Promise<SceneResult> {
  switch (name) {
    case 'roam':
      return await playRoam(world, narrator);
    case 'move':
      return await playMove(world, narrator);
    case 'crash':
      return await playCrash(world, narrator);
    default:
      return name satisfies never;
  }
}

async function playRoam(world: World, narrator: Narrator): Promise<SceneResult> {
  const roam = world.prepareRoam();
  return await perform('roam', world, narrator, { agent: world.vm, eid: VM_EID, name: 'vm', seconds: 6 }, async () => {
    const { cloud, address4 } = world.vm.at;
    const cableAwayMs = await timed(roam);
    narrator.say(
      `vm unplugged from cloud ${cloud.name} (${address4}), plugged into cloud ${world.vm.at.cloud.name} (${world.vm.at.address4})`,
    );
    return cableAwayMs;
  });
}

async function playMove(world: World, narrator: Narrator): Promise<SceneResult> {
  const move = await world.prepareMove();
  const agent = world.workload.here;
  return await perform('move', world, narrator, { agent, eid: DB_EID, name: 'db', seconds: 6 }, async () => {
    const { here, there } = world.workload;
    const cableAwayMs = await timed(move);
    narrator.say(`workload db taken off ${here.host.name} and attached to ${there.host.name}, its sockets open`);
    return cableAwayMs;
  });
}

async function playCrash(world: World, narrator: Narrator): Promise<SceneResult> {
  const { mapServer } = world.overlay;
  return await perform(
    'crash',
    world,
    narrator,
    { agent: world.vm, eid: VM_EID, name: 'vm', seconds: 10 },
    async () => {
      await Promise.all([world.vm.daemon.kill9(), world.client.daemon.kill9()]);
      narrator.say('kill -9 of the agents of vm and client');
      await pause(2_000);
      for (const agent of [world.vm, world.client]) agent.start();
      await Promise.all([world.vm.ready(), world.client.ready()]);
      narrator.say('both agents are back');
      await mapServer.daemon.kill9();
      narrator.say('kill -9 of the map server');
      await pause(3_000);
      mapServer.daemon.start();
      await mapServer.ready();
      narrator.say('the map server is back');
      return null;
    },
  );
}

interface Cast {
  readonly agent: Agent;
  readonly eid: string;
  readonly name: string;
  readonly seconds: number;
}

/** Traffic from the client to `cast.eid`, the event after a third of the download at the latest, the end, the sums. */
async function perform(
  name: SceneName,
  world: World,
  narrator: Narrator,
  cast: Cast,
  event: () => Promise<number | null>,
): Promise<SceneResult> {
  const serving = cast.eid === DB_EID ? world.db : cast.agent.host;
  const underlayRttMs = await world.internet.underlayRttMs(world.client.host, cast.agent.at);
  const server = await startServer(serving, cast.eid);
  const url = `http://${cast.name}.${world.overlay.zone}`;
  const downloadBytes = cast.seconds * RATE;
  narrator.say(`client: curl ${url}, a TCP heartbeat 100/s and ${DATAGRAMS_PER_SECOND} datagrams/s to ${cast.eid}`);
  const traffic = await Traffic.start(world.client.host, {
    address: cast.eid,
    url,
    downloadBytes,
    downloadRate: RATE,
    datagramsPerSecond: DATAGRAMS_PER_SECOND,
  });
  const watching = setInterval(() => narrator.watch(traffic), 500);
  try {
    await traffic.waitForBytes(Math.min(downloadBytes / 3, 2 * RATE));
    const cableAwayMs = await event();
    const result = await traffic.finish();
    return { name, ok: isGood(result), underlayRttMs, cableAwayMs, rssMb: memory(world), ...result };
  } finally {
    clearInterval(watching);
    await server.stop();
  }
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await action();
  return Math.round((performance.now() - started) * 10) / 10;
}

function isGood(result: TrafficResult): boolean {
  return (
    result.sha256Match && result.tcpAlive && result.tcpResets === 0 && result.tcpLongestGapMs <= LONGEST_ACCEPTED_GAP_MS
  );
}

function memory(world: World): SceneResult['rssMb'] {
  const agents = [...world.overlay.agents.values()];
  return {
    agent: Math.max(...agents.map((agent) => agent.daemon.rssMb())),
    dataplane: Math.max(...agents.map((agent) => agent.dataplane.rssMb())),
    mapServer: world.overlay.mapServer.daemon.rssMb(),
  };
}
