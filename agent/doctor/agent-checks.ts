/** Checks of the agent itself: whether it is at work, who it is, and whether what runs fits together. */

import { fail, type Outcome, ok, skipped, warn } from '../../runtime/finding.ts';
import { VERSION } from '../../runtime/project-root.ts';
import { type UnitState, unitStates } from '../../runtime/systemd.ts';
import type { Subject } from './subject.ts';

export async function checkUnits(): Promise<readonly Outcome[]> {
  return judgeUnits(await unitStates([...UNITS, SLEEP]));
}

/** `states`: null on a machine without systemd. */
export function judgeUnits(states: readonly UnitState[] | null): readonly Outcome[] {
  if (states === null) return [skipped('this machine is not run by systemd')];
  const there = states.filter(({ unit, state }) => unit !== SLEEP && state !== 'missing');
  if (there.length === 0) return [skipped('no units of Stayput are installed')];
  const outcomes = there.map(({ unit, state, enabled }) => {
    if (state !== 'active')
      return fail(`${unit} is ${state}`, `sudo systemctl start ${unit}; journalctl -u ${unit} -n 20`);
    if (enabled === 'disabled')
      return warn(`${unit} is active, but not after the next boot`, `sudo systemctl enable ${unit}`);
    return ok(`${unit} is active`);
  });
  // Enabled together, unless the agent was before there was such a unit; one that is masked is not wanted.
  const enabledOf = (name: string) => states.find(({ unit }) => unit === name)?.enabled;
  if (enabledOf(AGENT) !== 'enabled' || enabledOf(SLEEP) !== 'disabled') return outcomes;
  const found = `${SLEEP} is not enabled: session keys stay in memory, or on disk, while this machine sleeps`;
  return [...outcomes, warn(found, 'sudo systemctl enable stayput-sleep')];
}

/** What it says is wrong, as `stayput status` has it. */
export function checkAgent({ status, away, joined, unreadable }: Subject): readonly Outcome[] {
  if (status === null) {
    if (joined === null && unreadable === null) return [skipped('it runs when this host has joined')];
    return [
      fail(away ?? 'no answer', 'sudo systemctl start stayput-agent; has this host joined (stayput agent join)?'),
    ];
  }
  if (status.problems.length === 0) return [ok(status.registered ? 'registered' : 'at work, not registered yet')];
  return status.problems.map((problem) => fail(problem, 'see docs/troubleshooting.md'));
}

export function checkIdentity({ status, joined, unreadable }: Subject): readonly Outcome[] {
  if (status?.fenced === true) {
    return [
      fail('another host has this identity', 'on one of the two: sudo stayput agent reset-identity (docs/operate.md)'),
    ];
  }
  if (joined === null) {
    if (unreadable !== null) return [skipped(`${unreadable}: run it as root`)];
    return [warn('this host has not joined an overlay', 'sudo stayput agent join URL --token-file FILE')];
  }
  const { validTo, validFrom } = joined.certificate;
  const [ends, begins, now] = [Date.parse(validTo), Date.parse(validFrom), Date.now()];
  const days = Math.floor((ends - now) / DAY);
  if (ends <= now) {
    return [
      fail(
        `the certificate ended on ${validTo}`,
        'with the agent stopped: sudo stayput agent join URL --token-file FILE --force (docs/operate.md)',
      ),
    ];
  }
  if (begins > now + SKEW) return [fail(`the certificate is valid from ${validFrom} on`, 'set the clock of this host')];
  // Renewed at two thirds of its life: in the last quarter, that has failed for a while.
  if (ends - now < (ends - begins) / 4) {
    return [
      warn(
        `the certificate ends in ${days} days and was not renewed`,
        'does the agent reach the map server? journalctl -u stayput-agent | grep certificate',
      ),
    ];
  }
  return [ok(`joined; the certificate is valid for ${days} more days and renewed by itself`)];
}

export function checkVersions({ status }: Subject): readonly Outcome[] {
  if (status === null) return [skipped('the agent does not answer')];
  const { dataplane, version } = status;
  if (version !== VERSION) {
    return [
      warn(
        `the agent that runs is ${version}, what is installed is ${VERSION}`,
        'sudo systemctl restart stayput-agent',
      ),
    ];
  }
  if (dataplane.software === null) return [skipped(`agent ${version}; the data plane is not attached`)];
  if (!dataplane.software.endsWith(`/${VERSION}`)) {
    return [warn(`agent ${version}, data plane ${dataplane.software}`, 'sudo systemctl restart stayput-dataplane')];
  }
  return [ok(`agent ${version}, data plane ${dataplane.software}`)];
}

const AGENT = 'stayput-agent.service';
const UNITS = [AGENT, 'stayput-dataplane.service'];
const SLEEP = 'stayput-sleep.service';
const DAY = 86_400_000;
const SKEW = 300_000;
