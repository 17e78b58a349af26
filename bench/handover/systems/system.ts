/** A system whose handovers are measured. */

import type { Host } from '../../../test/lab/lab.ts';
import type { LabProcess } from '../../../test/lab/lab-process.ts';
import type { Talk } from '../correspondents.ts';
import type { EventName, EventTimes } from '../events.ts';
import type { Party } from '../probing.ts';
import type { Underlay } from '../underlay.ts';

export interface HandoverSystem {
  readonly name: string;
  readonly version: string;
  /** Why it does not have this event, if so. */
  lacks(event: EventName): string | undefined;
  /** Another event that is the very same here, so that its figures are those of this one. */
  sameAs(event: EventName): EventName | undefined;
  /** Sets everything up in new clouds; ready when mover and peer can talk. What it starts ends with the underlay. */
  start(underlay: Underlay): Promise<Scene>;
}

export interface Scene {
  /** Makes everything ready for one repetition. */
  stage(event: EventName): Promise<Staged>;
}

export interface Staged {
  readonly mover: Party;
  readonly peer: Party;
  /** What happens. Called once, with traffic flowing. */
  happen(): Promise<EventTimes>;
  /** Puts things back, as far as the next repetition needs it. */
  restore(): Promise<void>;
  /** Instead of the probes: ready to talk to the mover. */
  readonly crowd?: () => Promise<Talk>;
  /** Whose packets and logs tell how the handover went. */
  readonly witnesses?: Witnesses;
}

export interface Witnesses {
  readonly hosts: readonly WitnessHost[];
  readonly logs: readonly { readonly name: string; readonly process: LabProcess }[];
}

export interface WitnessHost {
  readonly host: Host;
  /** Those that face the underlay. */
  readonly interfaces: readonly string[];
  /** Its own addresses there, at the moment. */
  addresses(): readonly string[];
}

/** Why others are not measured with many correspondents. */
export const NO_CROWD = 'the program that is 1,000 correspondents speaks the wire format of Stayput only';

/** CLOCK_MONOTONIC. */
export function now(): bigint {
  return process.hrtime.bigint();
}
