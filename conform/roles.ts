/** What a target can be tested as. */
import type { IpPrefix } from '../proto/address.ts';
import { AddressRange } from './address-range.ts';
import type { Check } from './check.ts';
import type { Stage } from './engine.ts';
import type { SiteKey } from './lisp/message-code.ts';
import type { UdpTarget } from './lisp/udp-port.ts';
import { mapServerChecks } from './map-server/checks.ts';
import { DEFAULT_OUTSIDE, DEFAULT_RANGE, mapServerRole } from './map-server/subject.ts';
import type { Pacer } from './pacer.ts';
import type { Subject } from './run.ts';

export const ROLES = ['map-server'] as const;

export type Role = (typeof ROLES)[number];

export const DEFAULT_PORTS: Readonly<Record<Role, number>> = { 'map-server': 4342 };

export interface RoleSettings {
  readonly target: UdpTarget;
  readonly local: string;
  readonly pacer: Pacer;
  readonly answerMs: number;
  readonly siteKey: SiteKey | undefined;
  readonly eidPrefixes: readonly IpPrefix[];
  readonly outsidePrefixes: readonly IpPrefix[];
}

/** @throws UsageError when something that the role needs is missing */
export function openRole(role: Role, settings: RoleSettings): Subject<Stage> {
  switch (role) {
    case 'map-server':
      return mapServerRole({
        target: settings.target,
        local: settings.local,
        pacer: settings.pacer,
        answerMs: settings.answerMs,
        graceMs: Math.min(100, settings.answerMs),
        key: settings.siteKey,
        range: new AddressRange(settings.eidPrefixes, DEFAULT_RANGE),
        outside: new AddressRange(settings.outsidePrefixes, DEFAULT_OUTSIDE),
      }) as unknown as Subject<Stage>;
  }
}

/** Without a target, to list them. */
export function checksOf(role: Role): readonly Omit<Check<never>, never>[] {
  switch (role) {
    case 'map-server':
      return mapServerChecks();
  }
}
