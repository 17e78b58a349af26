/** What the map server is told for its list of agents that Prometheus reads. */
import { hostname } from 'node:os';
import { type IpAddress, isHostPrefix, isIpAddress, parseIpAddress, prefixAddress } from '../../proto/address.ts';
import { type ExporterNotice, exporterWord, type Place } from '../../proto/exporter.ts';
import { parseHostPort } from '../../runtime/host-port.ts';
import { VERSION } from '../../runtime/project-root.ts';
import type { AgentConfig } from '../config.ts';
import type { OwnedEid } from '../core/registrar.ts';

export function exporterNotice(
  config: Pick<AgentConfig, 'metricsListen' | 'metricsAddress'>,
  own: readonly Pick<OwnedEid, 'eid' | 'kind' | 'state' | 'interface'>[],
  place: Place | null,
  name = hostname(),
): ExporterNotice {
  return {
    type: 'exporter',
    metrics: metrics(config, own),
    hostname: exporterWord(name) || 'unknown',
    version: VERSION,
    place: place === null ? null : asWords(place),
  };
}

function asWords({ platform, region, zone, instanceId }: Place): Place {
  const word = (text: string | null): string | null => (text === null ? null : exporterWord(text));
  return { platform: exporterWord(platform), region: word(region), zone: word(zone), instanceId: word(instanceId) };
}

function metrics(
  { metricsListen, metricsAddress }: Pick<AgentConfig, 'metricsListen' | 'metricsAddress'>,
  own: readonly Pick<OwnedEid, 'eid' | 'kind' | 'state' | 'interface'>[],
): ExporterNotice['metrics'] {
  if (metricsListen === null) return null;
  const { host, port } = parseHostPort(metricsListen);
  const listened = isIpAddress(host) ? parseIpAddress(host) : null;
  if (listened === null || listened.startsWith('127.') || listened === '::1') return null;
  if (metricsAddress !== 'underlay' && metricsAddress !== 'eid') return { address: metricsAddress, port };
  if (listened !== '0.0.0.0' && listened !== '::') return { address: listened, port };
  if (metricsAddress === 'underlay') return { address: null, port };
  const address = ownAddress(own);
  return address === null ? null : { address, port };
}

/** An EID of the host itself: behind that of a workload another machine listens. */
function ownAddress(own: readonly Pick<OwnedEid, 'eid' | 'kind' | 'state' | 'interface'>[]): IpAddress | null {
  const addresses = own.flatMap(({ eid, kind, state, interface: via }) =>
    kind === 'address' && state === 'live' && via === null && eid.kind === 'prefix' && isHostPrefix(eid.prefix)
      ? [prefixAddress(eid.prefix)]
      : [],
  );
  return addresses.sort()[0] ?? null;
}
