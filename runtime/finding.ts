/** What a check of `stayput doctor` or `stayput mapserver doctor` found. */

export interface Finding {
  readonly check: string;
  /** `skipped`: it could not be looked at, and `found` says why. */
  readonly level: 'ok' | 'warn' | 'fail' | 'skipped';
  readonly found: string;
  /** What to do; null when there is nothing to do. */
  readonly advice: string | null;
}

export type Outcome = Omit<Finding, 'check'>;

export function ok(found: string): Outcome {
  return { level: 'ok', found, advice: null };
}

export function warn(found: string, advice: string): Outcome {
  return { level: 'warn', found, advice };
}

export function fail(found: string, advice: string): Outcome {
  return { level: 'fail', found, advice };
}

export function skipped(found: string): Outcome {
  return { level: 'skipped', found, advice: null };
}
