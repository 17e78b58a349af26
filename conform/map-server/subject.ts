/** The role `map-server`: a Map-Server and Map-Resolver on UDP (RFC 9301). */
import { UsageError } from '../../proto/errors.ts';
import type { Subject } from '../run.ts';
import { mapServerChecks } from './checks.ts';
import { MapServerStage, type MapServerSubject } from './stage.ts';

export function mapServerRole(subject: MapServerSubject): Subject<MapServerStage> {
  const { key, range, outside, local } = subject;
  const foreign = outside.prefixes.filter((prefix) => range.prefixes.includes(prefix));
  if (foreign.length > 0) throw new UsageError(`${foreign.join(', ')} cannot be both inside and outside of the site`);
  return {
    role: 'map-server',
    checks: mapServerChecks(),
    settings: {
      'site key': key === undefined ? 'none' : `ID ${key.keyId}, algorithm ${key.algorithm}`,
      'EID prefixes of the site': range.prefixes.join(', '),
      'EID prefixes outside': outside.prefixes.join(', '),
      'own address': local,
    },
    stage: () => MapServerStage.open(subject),
  };
}

export const DEFAULT_RANGE = { v4: '198.18.0.0/16', v6: '2001:2::/48' } as const;
export const DEFAULT_OUTSIDE = { v4: '198.19.0.0/16', v6: '2001:2:8000::/48' } as const;
