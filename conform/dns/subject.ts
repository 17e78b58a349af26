/** The role `dns`: any name server or resolver that knows the zone (RFC 1034, 1035, 6891, 7766). */
import type { Check } from '../check.ts';
import type { Subject } from '../run.ts';
import { answerChecks } from './answers.ts';
import { robustnessChecks } from './robustness.ts';
import { DnsStage, type DnsSubject } from './stage.ts';
import { ednsChecks, tcpChecks } from './transport.ts';

export function dnsChecks(): readonly Check<DnsStage>[] {
  return [...answerChecks(), ...ednsChecks(), ...tcpChecks(), ...robustnessChecks()];
}

export function dnsRole(subject: DnsSubject): Subject<DnsStage> {
  return {
    role: 'dns',
    checks: dnsChecks(),
    settings: { zone: subject.zone, name: subject.name ?? 'none', 'own address': subject.local },
    stage: () => DnsStage.open(subject),
  };
}
