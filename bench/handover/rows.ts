/** The repetitions of one event as a row for each probe. */
import { quantile } from '../statistics.ts';
import type { Outcome } from './analysis.ts';
import type { Step } from './crowd-analysis.ts';
import type { EventName } from './events.ts';
import type { CROWD, ProbeName } from './samples.ts';

export type RowName = ProbeName | typeof CROWD;

export interface Row {
  readonly system: string;
  readonly event: EventName;
  readonly probe: RowName;
  /** Repetitions that were measured. */
  readonly n: number;
  readonly gapMsP50: number | null;
  /** The smallest value that 99 % do not exceed: below 100 repetitions the largest. */
  readonly gapMsP99: number | null;
  readonly gapMsMax: number | null;
  /** Packets or requests, of bulk octets; a sum over the repetitions, like the next four. */
  readonly sent: number;
  readonly lost: number;
  /** Of the lost: sent by the mover while its own cable was away, so that no system saw it. */
  readonly lostWhileAway: number;
  readonly duplicated: number;
  /** Connections that were reset or ended. */
  readonly reset: number;
  /** The longest time without progress of TCP, the event's own interruption included; null for UDP. */
  readonly stallMs: number | null;
  /** Longest silences, the event's own interruption included. */
  readonly outageMsP50: number | null;
  readonly outageMsMax: number | null;
  /** How long the event itself took until the gap counts: cable, address and route, or the workload, away. */
  readonly awayMsP50: number | null;
  /** Repetitions in which nothing arrived any more when the watch ended: their gaps and outages are longer than given. */
  readonly cutOff: number;
  /** Of bulk: repetitions in which what arrived was what was sent; null for other probes. */
  readonly sha256Match: number | null;
  readonly gapsMs: readonly number[];
  /** Why there is no figure, or fewer than asked for. */
  readonly note?: string;
}

export interface Repetition {
  readonly awayMs: number;
  readonly outcomes: Readonly<Partial<Record<RowName, Outcome>>>;
  /** How many correspondents came to know. */
  readonly steps?: readonly Step[];
}

/** One for each probe, also where nothing was measured. `note`: why, or why less than asked for. */
export function rowsOf(
  system: string,
  event: EventName,
  probes: readonly RowName[],
  repetitions: readonly Repetition[],
  note?: string,
): Row[] {
  return probes.map((probe) => rowOf(system, event, probe, repetitions, note));
}

function rowOf(
  system: string,
  event: EventName,
  probe: RowName,
  repetitions: readonly Repetition[],
  note: string | undefined,
): Row {
  const outcomes = repetitions.map((repetition) => repetition.outcomes[probe]).filter((each) => each !== undefined);
  const sum = (of: (outcome: Outcome) => number): number => outcomes.reduce((total, each) => total + of(each), 0);
  const gaps = outcomes.map(({ gapMs }) => rounded(gapMs));
  const outages = outcomes.map(({ outageMs }) => outageMs);
  return {
    system,
    event,
    probe,
    n: outcomes.length,
    gapMsP50: figure(quantile(gaps, 0.5)),
    gapMsP99: figure(quantile(gaps, 0.99)),
    gapMsMax: figure(quantile(gaps, 1)),
    sent: sum(({ sent }) => sent),
    lost: sum(({ lost }) => lost),
    lostWhileAway: sum(({ lostWhileAway }) => lostWhileAway),
    duplicated: sum(({ duplicated }) => duplicated),
    reset: sum(({ resets }) => resets),
    stallMs: probe.startsWith('tcp-') ? figure(quantile(outages, 1)) : null,
    outageMsP50: figure(quantile(outages, 0.5)),
    outageMsMax: figure(quantile(outages, 1)),
    awayMsP50: figure(
      quantile(
        repetitions.map(({ awayMs }) => awayMs),
        0.5,
      ),
    ),
    cutOff: outcomes.filter(({ cutOff }) => cutOff).length,
    sha256Match: probe === 'tcp-bulk' ? outcomes.filter(({ sha256Match }) => sha256Match === true).length : null,
    gapsMs: gaps,
    ...(note === undefined ? {} : { note }),
  };
}

function figure(value: number): number | null {
  return Number.isNaN(value) ? null : rounded(value);
}

/** The probes resolve no more than their pace, 1 ms. */
function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}
