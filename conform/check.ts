/**
 * What a check is, and how it says what it saw.
 *
 * A check does one thing to an implementation and judges what comes back. It ends by returning what was seen (passed),
 * by throwing a `Deviation` (failed), or a `NotTried` (something that it needs is not there). Anything else that it
 * throws is a defect of the kit or of the network between, and is reported as such, never as the target's fault.
 */
import { StayputError } from '../proto/errors.ts';

export const LEVELS = ['MUST', 'SHOULD', 'interop'] as const;

/** `interop`: no RFC demands it, but deployed implementations rely on it. */
export type Level = (typeof LEVELS)[number];

export interface Check<Subject> {
  /** Stable for good: `MS-REG-012`. */
  readonly id: string;
  readonly level: Level;
  /** `RFC 9301 5.6`. */
  readonly source: string;
  readonly title: string;
  /** One sentence: what is sent. */
  readonly sent: string;
  /** One sentence: what has to come of it. */
  readonly expected: string;
  /** What was seen. @throws Deviation @throws NotTried */
  readonly run: (subject: Subject) => Promise<string>;
}

/** The target did something else than what was expected; the message says what was seen. */
export class Deviation extends StayputError {
  constructor(seen: string) {
    super('STAYPUT_CONFORM_DEVIATION', seen);
  }
}

/** The check cannot be carried out here; the message says what is missing. */
export class NotTried extends StayputError {
  constructor(why: string) {
    super('STAYPUT_CONFORM_NOT_TRIED', why);
  }
}

/** @throws Deviation unless `holds` */
export function demand(holds: boolean, seen: string): asserts holds {
  if (!holds) throw new Deviation(seen);
}

/** Checks of one group, numbered in their order: `MS-REG-001`, … New ones go to the end. */
export function group<Subject>(
  prefix: string,
  checks: readonly Omit<Check<Subject>, 'id'>[],
): readonly Check<Subject>[] {
  return checks.map((check, at) => ({ ...check, id: `${prefix}-${String(at + 1).padStart(3, '0')}` }));
}
