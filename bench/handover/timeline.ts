/**
 * What happened in one event, from all sides: the probes' packets, the messages on the underlay as they were captured,
 * and what the daemons logged. All times are milliseconds since the event began.
 */
import { readFileSync } from 'node:fs';
import { Capture, type Packet } from '../../test/lab/capture.ts';
import { analyse, type Outcome, type Watch } from './analysis.ts';
import type { EventName } from './events.ts';
import { observe } from './observation.ts';
import { millisecondsSince, type ProbeName, type Samples } from './samples.ts';
import type { HandoverSystem, Staged, WitnessHost } from './systems/system.ts';
import { type Conditions, Underlay } from './underlay.ts';

export interface Timeline {
  readonly system: string;
  readonly event: EventName;
  readonly rttMs: number;
  /** When the gap begins to count. */
  readonly countedMs: number;
  readonly probes: readonly { readonly samples: Samples; readonly outcome: Outcome }[];
  readonly messages: readonly Message[];
  readonly notes: readonly LogNote[];
}

export const MESSAGE_KINDS = ['handshake', 'probe', 'report', 'map server'] as const;

export type MessageKind = (typeof MESSAGE_KINDS)[number];

export interface Message {
  readonly host: string;
  readonly kind: MessageKind;
  readonly direction: 'sent' | 'received';
  readonly atMs: number;
}

/** A line of a log. */
export interface LogNote {
  readonly who: string;
  readonly text: string;
  readonly atMs: number;
}

const DATA_PORT = 4341;
const CONTROL_PORT = 4342;
/** Octet 7 of the LISP header tells data from the rest. */
const FILTER = `(udp port ${DATA_PORT} and udp[15] >= 0x10) or tcp port ${CONTROL_PORT}`;
const SNAP = 160;
/** A control packet with a probe or a keepalive; a report is longer. */
const PROBE_OCTETS = 41;

/**
 * Sets the system up, and lets the event happen once, with captures on the hosts that it names.
 *
 * @param options `probe` is the path of the probe program
 * @throws BenchError or LabError when the system cannot be set up, or the event does not happen
 */
export async function recordTimeline(
  system: HandoverSystem,
  event: EventName,
  probes: readonly ProbeName[],
  options: Conditions & { readonly probe: string },
): Promise<Timeline> {
  const underlay = await Underlay.build(options);
  try {
    const staged = await (await system.start(underlay)).stage(event);
    const hosts = staged.witnesses?.hosts ?? [];
    const before = hosts.map((witness) => witness.addresses());
    const captures = await Promise.all(hosts.map(startCaptures));
    const { samples, watch, origin } = await observe(staged, event, probes, options.probe);
    await Promise.all(captures.flat().map((capture) => capture.stop()));
    const sinceBegun = clock(origin, watch);
    const messages = hosts.flatMap(({ host, addresses }, i) => {
      const own = new Set([...(before[i] ?? []), ...addresses()]);
      const packets = (captures[i] ?? []).flatMap((capture) => capture.packets());
      return messagesOf(host.name, packets, own, sinceBegun);
    });
    return {
      system: system.name,
      event,
      rttMs: options.rttMs,
      countedMs: watch.countedMs - watch.begunMs,
      probes: samples.map((each) => relative(each, analyse(each, watch), watch.begunMs)),
      messages,
      notes: notesOf(staged, sinceBegun),
    };
  } finally {
    await underlay.close();
  }
}

function startCaptures({ host, interfaces }: WitnessHost): Promise<Capture[]> {
  return Promise.all(interfaces.map((name) => Capture.start(host, name, { filter: FILTER, snap: SNAP })));
}

/** Turns a moment of the wall clock, in milliseconds, into one since the event began. */
function clock(origin: bigint, watch: Watch): (wallMs: number) => number {
  // The instant at which the wall clock's millisecond changes.
  const before = Date.now();
  while (Date.now() === before);
  const offset = Date.now() - millisecondsSince(origin, process.hrtime.bigint());
  return (wallMs) => wallMs - offset - watch.begunMs;
}

/**
 * What a capture on `host` has of messages; data is left out.
 *
 * @param own the addresses of the host: what comes from others was received
 * @param sinceBegun turns milliseconds of the wall clock into those since the event began
 */
export function messagesOf(
  host: string,
  packets: readonly Packet[],
  own: ReadonlySet<string>,
  sinceBegun: (wallMs: number) => number,
): Message[] {
  return packets.flatMap((packet) => {
    const kind = kindOf(packet);
    if (kind === undefined) return [];
    const direction = own.has(packet.source) ? 'sent' : 'received';
    return [{ host, kind, direction, atMs: sinceBegun(packet.atMs) }] as const;
  });
}

function kindOf({ protocol, payload, length }: Packet): MessageKind | undefined {
  if (protocol === 'tcp') return length === 0 ? undefined : 'map server';
  const kind = payload[7] ?? 0;
  if (kind >= 0x10 && kind < 0x20) return 'handshake';
  if (kind === 0x20) return length === PROBE_OCTETS ? 'probe' : 'report';
  return undefined;
}

function relative(samples: Samples, outcome: Outcome, begunMs: number): Timeline['probes'][number] {
  const shift = (items: Samples['sent']): Samples['sent'] =>
    items.map(({ number, atMs }) => ({ number, atMs: atMs - begunMs }));
  const [from, to] = outcome.outage;
  return {
    samples: { ...samples, sent: shift(samples.sent), received: shift(samples.received) },
    outcome: { ...outcome, outage: [from - begunMs, to - begunMs] },
  };
}

function notesOf(staged: Staged, sinceBegun: (wallMs: number) => number): LogNote[] {
  return (staged.witnesses?.logs ?? []).flatMap(({ name, process }) =>
    parseLog(readFileSync(process.logFile, 'utf8')).map(({ wallMs, text }) => ({
      who: name,
      text,
      atMs: sinceBegun(wallMs),
    })),
  );
}

/** Lines of a daemon's log, with the fields that say what changed. */
export function parseLog(text: string): { readonly wallMs: number; readonly text: string }[] {
  return text.split('\n').flatMap((line) => {
    if (!line.startsWith('{')) return [];
    try {
      const { time, msg, eid, state, result, micros } = JSON.parse(line) as Readonly<Record<string, unknown>>;
      const wallMs = typeof time === 'number' ? time : Date.parse(String(time));
      const details = [eid, state, result, micros === undefined ? undefined : `${micros} µs`];
      const words = details.filter((word) => word !== undefined).map(String);
      return Number.isNaN(wallMs) ? [] : [{ wallMs, text: [`${msg}`, words.join(' ')].filter(Boolean).join(': ') }];
    } catch {
      return [];
    }
  });
}
