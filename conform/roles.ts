/** What a target can be tested as. */
import type { IpAddress, IpPrefix } from '../proto/address.ts';
import { UsageError } from '../proto/errors.ts';
import { dataplaneBinary } from '../runtime/crate-build.ts';
import { findProgram } from '../runtime/programs.ts';
import { AddressRange } from './address-range.ts';
import type { Check } from './check.ts';
import { dnsChecks, dnsRole } from './dns/subject.ts';
import { Exclusive } from './exclusive.ts';
import type { SiteKey } from './lisp/message-code.ts';
import { mapServerChecks } from './map-server/checks.ts';
import { DEFAULT_OUTSIDE, DEFAULT_RANGE, mapServerRole } from './map-server/subject.ts';
import { XtrPool } from './map-server/xtrs.ts';
import { nativeChecks, nativeRole } from './native/checks.ts';
import type { Report } from './report/report.ts';
import type { Role } from './role.ts';
import { type RunOptions, runConformance } from './run.ts';
import { xtrChecks, xtrRole } from './xtr/subject.ts';

export const DEFAULT_PORTS: Readonly<Record<Role, number>> = {
  'map-server': 4342,
  xtr: 4342,
  dns: 53,
  native: 4342,
};

export interface RoleSettings {
  readonly local: string;
  readonly answerMs: number;
  readonly siteKey: SiteKey | undefined;
  readonly eidPrefixes: readonly IpPrefix[];
  readonly outsidePrefixes: readonly IpPrefix[];
  readonly zone: string | undefined;
  readonly name: string | undefined;
  readonly eid: IpAddress | undefined;
  readonly ownEid: IpAddress | undefined;
  readonly instance: number;
  readonly isMapServer: boolean;
}

/** @throws UsageError when something that the role needs is missing */
export async function runRole(role: Role, settings: RoleSettings, options: RunOptions): Promise<Report> {
  const { local, answerMs, zone, name } = settings;
  const { target, pacer } = options;
  const graceMs = Math.min(100, answerMs);
  switch (role) {
    case 'map-server':
      return runConformance(
        mapServerRole({
          target,
          local,
          pacer,
          lispPort: new Exclusive(),
          xtrs: new XtrPool(local),
          answerMs,
          graceMs,
          key: settings.siteKey,
          range: new AddressRange(settings.eidPrefixes, DEFAULT_RANGE),
          outside: new AddressRange(settings.outsidePrefixes, DEFAULT_OUTSIDE),
        }),
        options,
      );
    case 'xtr':
      if (settings.eid === undefined) throw new UsageError('the role xtr needs an EID behind the target (--eid)');
      return runConformance(
        xtrRole({
          target,
          local,
          pacer,
          dataPort: new Exclusive(),
          lispPort: new Exclusive(),
          answerMs,
          graceMs,
          eid: settings.eid,
          ownEid: settings.ownEid,
          instance: settings.instance,
          outside: new AddressRange(settings.outsidePrefixes, DEFAULT_OUTSIDE),
          isMapServer: settings.isMapServer,
          rawProgram: dataplaneBinary() ?? findProgram('stayput-dataplane'),
        }),
        options,
      );
    case 'dns':
      if (zone === undefined) throw new UsageError('the role dns needs a zone that the target knows (--zone)');
      return runConformance(dnsRole({ target, local, pacer, answerMs, graceMs, zone: trimmed(zone), name }), options);
    case 'native':
      return runConformance(nativeRole({ target, local, pacer, answerMs }), options);
  }
}

/** Without a target, to list them. */
export function checksOf(role: Role): readonly Check<never>[] {
  switch (role) {
    case 'map-server':
      return mapServerChecks();
    case 'xtr':
      return xtrChecks();
    case 'dns':
      return dnsChecks();
    case 'native':
      return nativeChecks();
  }
}

function trimmed(name: string): string {
  return name.replace(/\.$/, '');
}
