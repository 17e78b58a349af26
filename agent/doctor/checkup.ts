/** `stayput doctor`: all checks of a host, side by side, each within a time. */

import { type Finding, type Outcome, ok, skipped, warn } from '../../runtime/finding.ts';
import type { AgentConfig } from '../config.ts';
import { examinePlatform } from '../platform/examination.ts';
import { platformReport } from '../platform/report.ts';
import { examineDns } from '../shell/dns-doctor.ts';
import { checkAgent, checkIdentity, checkUnits, checkVersions } from './agent-checks.ts';
import { checkKernel, checkOffloads, checkState, checkTunnel } from './host-checks.ts';
import { type Contact, checkClock, checkMapServer, contact } from './map-server-checks.ts';
import { checkFirewall, checkMtu, checkOverlap, checkReversePath, checkUdp } from './network-checks.ts';
import { type Subject, subjectOf } from './subject.ts';

type Check = (
  subject: Subject,
  found: Contact | null,
) => readonly Outcome[] | readonly Finding[] | Promise<readonly Outcome[] | readonly Finding[]>;

/** In the order in which they are shown. */
const CHECKS: Readonly<Record<string, Check>> = {
  kernel: () => checkKernel(),
  units: checkUnits,
  state: checkState,
  identity: checkIdentity,
  'map-server': checkMapServer,
  clock: (_subject, found) => checkClock(found),
  agent: checkAgent,
  versions: checkVersions,
  tunnel: checkTunnel,
  offloads: checkOffloads,
  mtu: checkMtu,
  udp: checkUdp,
  firewall: checkFirewall,
  'rp-filter': (subject) => checkReversePath(subject),
  overlap: checkOverlap,
  dns: checkDns,
  platform: checkPlatform,
};

export const CHECK_NAMES: readonly string[] = Object.keys(CHECKS);

/**
 * `names`: which checks. `mapServer`: its URL, for a host that has not joined. `tell` hears what each found, in their
 * order, as soon as it is known: some wait for what does not answer. @throws UsageError
 */
export async function examine(
  config: AgentConfig,
  names: readonly string[],
  mapServer: string | undefined,
  tell: (findings: readonly Finding[]) => void = () => {},
): Promise<readonly Finding[]> {
  const subject = await subjectOf(config, mapServer);
  const found = subject.mapServer === null ? null : await contact(subject.mapServer);
  const running = names.map(async (name) => {
    const outcomes = await within(async () => CHECKS[name]?.(subject, found) ?? []);
    return outcomes.map((outcome): Finding => ({ check: name, ...outcome }));
  });
  const all: Finding[] = [];
  for (const check of running) {
    const findings = await check;
    tell(findings);
    all.push(...findings);
  }
  return all;
}

async function within(
  check: () => Promise<readonly Outcome[] | readonly Finding[]>,
): Promise<readonly Outcome[] | readonly Finding[]> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<readonly Outcome[]>((resolve) => {
    timer = setTimeout(() => resolve([skipped('it took too long')]), LIMIT);
  });
  try {
    return await Promise.race([check(), late]);
  } catch (error) {
    return [skipped(`it could not be looked at (${(error as Error).message.split('\n', 1)[0]})`)];
  } finally {
    clearTimeout(timer);
  }
}

async function checkDns({ config, status }: Subject): Promise<readonly Outcome[]> {
  if (!config.dns.enabled) return [skipped('dns.enabled is false')];
  if (status === null) return [skipped('the agent does not answer')];
  const diagnoses = await examineDns({ config, name: undefined, forward: undefined });
  const wrong = diagnoses.filter(({ level }) => level !== 'ok');
  if (wrong.length === 0) return [ok('names of the overlay and others are found end to end')];
  return wrong.map(({ level, check, found, advice }) => ({ level, found: `${check}: ${found}`, advice }));
}

async function checkPlatform({ config }: Subject): Promise<readonly Outcome[]> {
  if (config.platform === 'off') return [skipped('platform is off')];
  const { title, reason, facts, problem } = platformReport(await examinePlatform(config.platform));
  if (facts !== null) return [ok(`${title}: ${reason}`)];
  const why = problem === null ? '' : `: ${problem.message}`;
  return [warn(`${title} does not answer${why}`, 'stayput doctor platform says more')];
}

/** Milliseconds. */
const LIMIT = 30_000;
