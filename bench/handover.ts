/**
 * `stayput bench handover`: what happens to traffic when an address changes, a workload moves, a process dies or a
 * path falls silent.
 *
 * The model: each system is set up once in clouds of its own, and the events happen one after the other, each several
 * times. A repetition starts the probes between mover and peer, waits until all are steady, lets the event happen, and
 * ends when all are steady again or time is up. The probes run at the same time: together they make some 10 000 small
 * packets and 5 MB a second, which leaves the machine mostly idle. Only the one to a silent mover runs by itself, since
 * a system whose peers learn the new address from the mover's packets looks better when another probe makes the mover
 * send. After a failed repetition the system is set up anew; after two in one event the event is given up.
 */
import { analyse } from './handover/analysis.ts';
import { describeSteps } from './handover/crowd-analysis.ts';
import { concernsMany, type EventName } from './handover/events.ts';
import { LIMIT_MS, observe, observeCrowd } from './handover/observation.ts';
import { type Repetition, type Row, type RowName, rowsOf } from './handover/rows.ts';
import { CROWD, PROBE_NAMES, type ProbeName } from './handover/samples.ts';
import type { HandoverSystem, Scene, Staged } from './handover/systems/system.ts';
import { type Conditions, Underlay } from './handover/underlay.ts';

export interface HandoverOptions extends Conditions {
  readonly events: readonly EventName[];
  readonly probes: readonly ProbeName[];
  /** Each probe in repetitions of its own, not only those that others would disturb. */
  readonly apart: boolean;
  readonly repetitionsOf: (system: HandoverSystem) => number;
  /** The probe program. */
  readonly probe: string;
}

/** Of one repetition with an outage that hardly takes time, for what is said at the start; the second with many correspondents. */
const REPETITION_SECONDS = 4;
const CROWD_REPETITION_SECONDS = 18;
const FAILURES = 2;
const SILENT_MOVER: ProbeName = 'udp-in';
const ROW_NAMES: readonly RowName[] = [...PROBE_NAMES, CROWD];

export async function benchHandover(
  systems: readonly HandoverSystem[],
  options: HandoverOptions,
  say: (line: string) => void,
): Promise<Row[]> {
  say(expectedDuration(systems, options));
  const rows: Row[] = [];
  for (const system of systems) rows.push(...(await benchSystem(system, options, say)));
  return rows;
}

function expectedDuration(systems: readonly HandoverSystem[], options: HandoverOptions): string {
  let [repetitions, seconds] = [0, 0];
  for (const system of systems) {
    for (const event of measuredEvents(system, options.events)) {
      const ofEvent = groupsFor(event, options).length * options.repetitionsOf(system);
      repetitions += ofEvent;
      seconds += ofEvent * (concernsMany(event) ? CROWD_REPETITION_SECONDS : REPETITION_SECONDS);
    }
  }
  const [least, most] = [seconds, seconds + (repetitions * LIMIT_MS) / 1000].map((each) => Math.ceil(each / 60));
  return `${repetitions} repetitions: about ${least} min if every outage is short, ${most} min if none ends within ${LIMIT_MS / 1000} s`;
}

/** Without those that a system lacks, and those that are the same as another one that is measured. */
function measuredEvents(system: HandoverSystem, events: readonly EventName[]): EventName[] {
  return events.filter((event) => {
    const same = system.sameAs(event);
    return system.lacks(event) === undefined && (same === undefined || !events.includes(same));
  });
}

export function groupsOf({
  probes,
  apart,
}: Pick<HandoverOptions, 'probes' | 'apart'>): readonly (readonly ProbeName[])[] {
  const single = probes.filter((probe) => apart || probe === SILENT_MOVER);
  const together = probes.filter((probe) => !single.includes(probe));
  return [...(together.length === 0 ? [] : [together]), ...single.map((probe) => [probe])];
}

async function benchSystem(
  system: HandoverSystem,
  options: HandoverOptions,
  say: (line: string) => void,
): Promise<Row[]> {
  const measured = measuredEvents(system, options.events);
  const rows = new Map<EventName, readonly Row[]>();
  const stage = new Stage(system, options);
  try {
    for (const event of measured) {
      const ofEvent: Row[] = [];
      for (const probes of groupsFor(event, options)) {
        ofEvent.push(...(await benchEvent(stage, event, probes, options, say)));
      }
      rows.set(
        event,
        ROW_NAMES.flatMap((probe) => ofEvent.filter((row) => row.probe === probe)),
      );
    }
  } finally {
    await stage.clear();
  }
  return options.events.flatMap((event) => {
    const own = rows.get(event);
    if (own !== undefined) return own;
    const reason = system.lacks(event);
    const probes: readonly RowName[] = concernsMany(event) ? [CROWD] : options.probes;
    if (reason !== undefined) return rowsOf(system.name, event, probes, [], reason);
    const same = system.sameAs(event);
    const note = `one process: the repetitions of ${same}`;
    return (same === undefined ? [] : (rows.get(same) ?? [])).map((row) => ({ ...row, event, note }));
  });
}

async function benchEvent(
  stage: Stage,
  event: EventName,
  probes: readonly RowName[],
  options: HandoverOptions,
  say: (line: string) => void,
): Promise<Row[]> {
  const { system } = stage;
  const repetitions: Repetition[] = [];
  const problems: string[] = [];
  const wanted = options.repetitionsOf(system);
  for (let n = 1; n <= wanted && problems.length < FAILURES; n += 1) {
    const where = `${system.name}: ${event} ${n} of ${wanted}`;
    try {
      const staged = await (await stage.scene()).stage(event);
      const repetition = await repeat(staged, event, probes, options.probe);
      repetitions.push(repetition);
      say(`${where}  ${inShort(repetition)}`);
      await staged.restore();
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      problems.push(message);
      say(`${where} failed: ${message}`);
      await stage.clear();
    }
  }
  return rowsOf(system.name, event, probes, repetitions, problems[0]);
}

async function repeat(
  staged: Staged,
  event: EventName,
  probes: readonly RowName[],
  program: string,
): Promise<Repetition> {
  if (concernsMany(event)) {
    const { outcome, steps, watch } = await observeCrowd(staged);
    return { awayMs: watch.countedMs - watch.begunMs, outcomes: { [CROWD]: outcome }, steps };
  }
  const traffic = probes.filter((probe) => probe !== CROWD);
  const { samples, watch } = await observe(staged, event, traffic, program);
  const outcomes = Object.fromEntries(samples.map((each) => [each.probe, analyse(each, watch)]));
  return { awayMs: watch.countedMs - watch.begunMs, outcomes };
}

function groupsFor(event: EventName, options: HandoverOptions): readonly (readonly RowName[])[] {
  return concernsMany(event) ? [[CROWD]] : groupsOf(options);
}

/** What a system is measured on: built when it is needed first, and again after something went wrong. */
class Stage {
  readonly system: HandoverSystem;
  private readonly conditions: Conditions;
  private current: { readonly underlay: Underlay; readonly scene: Scene } | undefined;

  constructor(system: HandoverSystem, conditions: Conditions) {
    this.system = system;
    this.conditions = conditions;
  }

  async scene(): Promise<Scene> {
    if (this.current !== undefined) return this.current.scene;
    const underlay = await Underlay.build(this.conditions);
    try {
      this.current = { underlay, scene: await this.system.start(underlay) };
      return this.current.scene;
    } catch (error) {
      await underlay.close();
      throw error;
    }
  }

  async clear(): Promise<void> {
    const { current } = this;
    this.current = undefined;
    await current?.underlay.close();
  }
}

function inShort({ awayMs, outcomes, steps }: Repetition): string {
  const parts = Object.entries(outcomes).map(([probe, outcome]) => {
    const lost = outcome.lost - outcome.lostWhileAway;
    const flaws = [
      lost === 0 ? '' : `${lost} lost`,
      outcome.lostWhileAway === 0 ? '' : `${outcome.lostWhileAway} lost while away`,
      outcome.duplicated === 0 ? '' : `${outcome.duplicated} twice`,
      outcome.resets === 0 ? '' : 'reset',
      outcome.sha256Match === false ? 'SHA-256 wrong' : '',
    ].filter((flaw) => flaw !== '');
    const gap = `${outcome.cutOff ? '>= ' : ''}${outcome.gapMs.toFixed(0)} ms`;
    return `${probe} ${gap}${flaws.length === 0 ? '' : ` (${flaws.join(', ')})`}`;
  });
  const away = awayMs === 0 ? '' : `; away ${awayMs.toFixed(0)} ms`;
  return `${parts.join(', ')}${away}${steps === undefined ? '' : `\n  ${describeSteps(steps)}`}`;
}
