/**
 * `stayput bench mapserver`: what registrations and Map-Requests cost the map server, over UDP and over its own transport.
 *
 * The model: a map server as it is installed, its store on disk, kept to one core, and beside it this process, which
 * plays all peers over loopback. Each EID is registered by a message of its own, as by a site of its own, and answered
 * by a Map-Notify; then all are refreshed in turn, then asked for. So many messages are always under way that the map
 * server has no pause. Each transport has a fresh map server.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rounded } from './figures.ts';
import { busyCores, describeHardware, type Hardware } from './machine.ts';
import { type LoadClient, type Pace, pace } from './mapserver/load-client.ts';
import { NativeClient } from './mapserver/native-client.ts';
import { BenchMapServer } from './mapserver/server.ts';
import { UdpClient } from './mapserver/udp-client.ts';

export interface MapServerBenchOptions {
  /** EIDs, each registered by itself. */
  readonly prefixes: number;
  /** For refreshes, and for requests. */
  readonly seconds: number;
}

export interface MapServerRow {
  readonly transport: 'udp' | 'native';
  /** First registrations, each durable before it is acknowledged. */
  readonly register: Pace;
  readonly refresh: Pace;
  readonly request: Pace;
  /** Of the heap, without what is garbage. */
  readonly octetsPerRegistration: number;
  readonly busyCoresBefore: number;
}

export interface MapServerReport {
  readonly machine: Hardware & { readonly prefixes: number; readonly seconds: number; readonly node: string };
  readonly rows: readonly MapServerRow[];
}

export async function benchMapServer(
  { prefixes, seconds }: MapServerBenchOptions,
  say: (line: string) => void,
): Promise<MapServerReport> {
  const machine = { ...describeHardware(), prefixes, seconds, node: process.versions.node };
  const rows: MapServerRow[] = [];
  for (const transport of ['udp', 'native'] as const) {
    const row = await measure(transport, prefixes, seconds);
    rows.push(row);
    const { register, refresh, request } = row;
    const each = [register, refresh, request].map(({ perSecond }) => perSecond.toFixed(0));
    say(`${transport}: ${each[0]} first registrations, ${each[1]} refreshes, ${each[2]} requests a second`);
  }
  return { machine, rows };
}

async function measure(transport: 'udp' | 'native', prefixes: number, seconds: number): Promise<MapServerRow> {
  const busyCoresBefore = rounded(await busyCores());
  const dir = mkdtempSync(join(tmpdir(), 'stayput-bench-mapserver-'));
  let server: BenchMapServer | undefined;
  let client: LoadClient | undefined;
  try {
    server = await BenchMapServer.start(dir);
    client = transport === 'udp' ? await UdpClient.open(server, prefixes) : await NativeClient.open(server, prefixes);
    const empty = await server.heap();
    const register = await pace(client, 'register', server.pid, { count: prefixes });
    const refresh = await pace(client, 'refresh', server.pid, { seconds });
    const full = await server.heap();
    const request = await pace(client, 'request', server.pid, { seconds });
    const octetsPerRegistration = Math.round((full - empty) / prefixes);
    return { transport, register, refresh, request, octetsPerRegistration, busyCoresBefore };
  } finally {
    client?.close();
    await server?.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}
