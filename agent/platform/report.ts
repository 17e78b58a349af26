/** `stayput doctor platform`: an examination for people and programs. The join token is a secret and not shown. */
import type { Examination } from './examination.ts';
import { operatorsEvents } from './notices.ts';
import type { Confidence, PlatformEvent, PlatformFacts } from './platform.ts';

export interface PlatformReport {
  readonly platform: string;
  readonly title: string;
  readonly confidence: Confidence;
  readonly reason: string;
  readonly detectionMs: number;
  /** For the questions to the platform as well. */
  readonly totalMs: number;
  readonly others: readonly { readonly platform: string; readonly confidence: Confidence; readonly reason: string }[];
  readonly facts: PlatformFacts | null;
  readonly events: readonly PlatformEvent[];
  readonly problem: { readonly failure: string; readonly message: string } | null;
}

export function platformReport({
  detected,
  detectionMs,
  totalMs,
  facts,
  events,
  problem,
}: Examination): PlatformReport {
  const { driver, confidence, reason } = detected.chosen;
  return {
    platform: driver.name,
    title: driver.title,
    confidence,
    reason,
    detectionMs: tenths(detectionMs),
    totalMs: tenths(totalMs),
    others: detected.verdicts
      .filter((verdict) => verdict.driver !== driver)
      .map((verdict) => ({
        platform: verdict.driver.name,
        confidence: verdict.confidence,
        reason: verdict.reason,
      })),
    facts: facts === null ? null : withoutSecret(facts),
    events: [...(events ?? []), ...operatorsEvents(facts)],
    problem: problem === null ? null : { failure: problem.failure, message: problem.message },
  };
}

export function platformReportLines(report: PlatformReport): string[] {
  const { title, platform, confidence, reason, detectionMs, totalMs, others, facts, events, problem } = report;
  const lines = [
    row(
      'platform',
      `${title} (${platform}), ${confidence}: ${reason}; found in ${detectionMs} ms, asked in ${totalMs} ms`,
    ),
  ];
  if (facts !== null) lines.push(...factLines(facts));
  for (const { action, notBefore } of events) {
    lines.push(row('event', notBefore === null ? action : `${action}, not before ${notBefore}`));
  }
  if (problem !== null) lines.push(row('problem', `${problem.message} (${problem.failure})`));
  return [...lines, ...others.map((other) => row(`not ${other.platform}`, `${other.confidence}: ${other.reason}`))];
}

function factLines({ instanceId, zone, region, network, locators, provisioning, asOf, refused }: PlatformFacts) {
  const lines: string[] = [];
  for (const [what, value] of Object.entries({ instance: instanceId, zone, region, network })) {
    if (value !== null) lines.push(row(what, value));
  }
  for (const { scope, address } of locators) lines.push(row(scope, address));
  for (const [key, value] of Object.entries(provisioning)) lines.push(row(key, value));
  if (asOf === 'boot') lines.push(row('as of', 'the boot of this machine: not true any more after a move'));
  return [...lines, ...refused.map((what) => row('refused', what))];
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}

function withoutSecret(facts: PlatformFacts): PlatformFacts {
  const { token, ...rest } = facts.provisioning;
  return { ...facts, provisioning: token === undefined ? rest : { ...rest, token: '(secret)' } };
}

/** What a platform said must not speak to the terminal. */
function row(what: string, value: string): string {
  return `${what.padEnd(WIDTH)} ${value.replace(/\p{C}/gu, '?')}`;
}

const WIDTH = 18;
