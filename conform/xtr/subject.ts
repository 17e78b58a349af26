/** The role `xtr`: a LISP router, or an agent that exchanges plain packets (RFC 9300, RFC 9301). */
import type { Check } from '../check.ts';
import type { Subject } from '../run.ts';
import { probeChecks, requestChecks, solicitChecks } from './control.ts';
import { dataChecks } from './data.ts';
import { outerChecks } from './outer.ts';
import { robustnessChecks } from './robustness.ts';
import { XtrStage, type XtrSubject } from './stage.ts';

export function xtrRole(subject: XtrSubject): Subject<XtrStage> {
  const { eid, ownEid, instance, local, outside, isMapServer } = subject;
  return {
    role: 'xtr',
    checks: xtrChecks(),
    settings: {
      EID: eid,
      'own EID': ownEid ?? 'none',
      instance: `${instance}`,
      'EID prefixes outside': outside.prefixes.join(', '),
      'own address': local,
      'Map-Server of the target': isMapServer ? 'this machine' : 'another',
    },
    stage: () => XtrStage.open(subject),
  };
}

export function xtrChecks(): readonly Check<XtrStage>[] {
  return [
    ...probeChecks(),
    ...requestChecks(),
    ...solicitChecks(),
    ...robustnessChecks(),
    ...dataChecks(),
    ...outerChecks(),
  ];
}
