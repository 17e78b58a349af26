/** Which platform this is, why, and why it is not another: from local facts, without network. */
import { UsageError } from '../../proto/errors.ts';
import type { LocalFacts } from './local-facts.ts';
import { NONE } from './none.ts';
import { type Confidence, type Detection, likely, PLATFORM_NAMES, type PlatformDriver } from './platform.ts';

export interface Verdict extends Detection {
  readonly driver: PlatformDriver;
}

export interface Detected {
  readonly chosen: Verdict;
  /** All that were considered, in their order. */
  readonly verdicts: readonly Verdict[];
}

/** `wanted`: `auto`, or the name of a driver, which is taken then whatever the facts say. @throws UsageError */
export function detectPlatform(facts: LocalFacts, drivers: readonly PlatformDriver[], wanted = 'auto'): Detected {
  const verdicts = drivers.map((driver) => ({ driver, ...driver.detect(facts) }));
  if (wanted !== 'auto') {
    const named = [...drivers, NONE].find(({ name }) => name === wanted);
    if (named === undefined) throw new UsageError(`there is no platform ${wanted}: ${PLATFORM_NAMES.join(', ')}`);
    return { chosen: { driver: named, ...likely('it was named; nothing was detected') }, verdicts };
  }
  let chosen: Verdict = { driver: NONE, ...NONE.detect(facts) };
  for (const verdict of verdicts) {
    if (RANK[verdict.confidence] >= RANK.likely && (chosen.driver === NONE || above(verdict, chosen))) chosen = verdict;
  }
  return { chosen, verdicts };
}

function above(one: Verdict, other: Verdict): boolean {
  return RANK[one.confidence] > RANK[other.confidence];
}

const RANK: Readonly<Record<Confidence, number>> = { certain: 3, likely: 2, possible: 1, none: 0 };
