/** What platforms and operators announce, before it gets to logs, to the status and to programs: bounded and plain. */
import type { PlatformEvent, PlatformFacts } from './platform.ts';

export function gateEvents(events: readonly PlatformEvent[]): readonly PlatformEvent[] {
  return events.slice(0, MAX_EVENTS).map(({ id, action, notBefore }) => ({
    id: plain(id),
    action: plain(action),
    notBefore: notBefore === null ? null : plain(notBefore),
  }));
}

/** What an operator set where the platform itself announces nothing. */
export function operatorsEvents(facts: PlatformFacts | null): readonly PlatformEvent[] {
  const action = facts?.asOf === 'now' ? facts.provisioning.maintenance : undefined;
  return action === undefined ? [] : gateEvents([{ id: `operator ${action}`, action, notBefore: null }]);
}

/**
 * Whether it is due about now, by the wall clock: from ten minutes before its time until half an hour behind it. `since`:
 * when it was announced, which stands for a time that is not said or not understood.
 */
export function isImminent({ notBefore }: PlatformEvent, since: number, now: number): boolean {
  const said = notBefore === null ? Number.NaN : Date.parse(notBefore);
  const due = Number.isNaN(said) ? since : said;
  return now >= due - BEFORE_MS && now <= due + BEHIND_MS;
}

function plain(text: string): string {
  return text.slice(0, MAX_TEXT).replace(/[^\w .,:+/-]/g, '?');
}

const MAX_EVENTS = 16;
const MAX_TEXT = 128;
const BEFORE_MS = 10 * 60_000;
const BEHIND_MS = 30 * 60_000;
