/**
 * Which agents Prometheus can read metrics from, and where: from what each said in its sessions (`proto/exporter.ts`).
 *
 * It is kept in memory and as long as the agent is enrolled, so that one that is away stays in the list, where its
 * absence is seen. An agent may name only the address that its session comes from, and EIDs that it owns: otherwise it
 * could have Prometheus ask anybody. Its locators prove nothing, it may register what it likes.
 */
import { z } from 'zod';
import { hostPrefix } from '../../proto/address.ts';
import { type InstanceId, prefixEid } from '../../proto/eid.ts';
import { EXPORTER_WORD, type ExporterNotice } from '../../proto/exporter.ts';
import type { XtrId } from '../../proto/mapping.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import type { MapServer } from '../core/map-server.ts';
import { ipAddressText } from './record-codec.ts';

/** A group of targets as Prometheus reads it over HTTP. */
export interface TargetGroup {
  readonly targets: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

interface Said {
  readonly notice: ExporterNotice;
  /** Where the session came from. */
  readonly observed: string;
}

export class Exporters {
  private readonly core: Pick<MapServer, 'state'>;
  private readonly instance: InstanceId;
  private readonly said = new Map<XtrId, Said>();

  /** `instance`: of the overlay. */
  constructor(core: Pick<MapServer, 'state'>, instance: InstanceId) {
    this.core = core;
    this.instance = instance;
  }

  /** Of an agent that is admitted. */
  note(xtrId: XtrId, observed: string, notice: ExporterNotice): void {
    this.said.set(xtrId, { notice, observed });
    if (this.said.size > 2 * this.core.state.statistics().agents) this.forget();
  }

  targets(): readonly TargetGroup[] {
    this.forget();
    const holders = this.holders();
    return [...this.said].flatMap(([xtrId, said]) => {
      const target = this.target(xtrId, said);
      if (target === undefined) return [];
      const { hostname } = said.notice;
      const instance = holders.get(hostname) === xtrId ? hostname : `${hostname}#${xtrId}`;
      return [{ targets: [target], labels: this.labels(xtrId, instance, said.notice) }];
    });
  }

  /** HOST:PORT; undefined when there is none, or it would be somebody else's. */
  private target(xtrId: XtrId, { notice: { metrics }, observed }: Said): string | undefined {
    if (metrics === null || metrics.port < FIRST_UNPRIVILEGED) return undefined;
    if (metrics.address === null || metrics.address === observed) return formatHostPort(observed, metrics.port);
    const owner = this.core.state.ownerOf(prefixEid(this.instance, hostPrefix(metrics.address)));
    return owner === xtrId ? formatHostPort(metrics.address, metrics.port) : undefined;
  }

  /** Of each name of a host the agent that was enrolled first, so that no later one passes for it. */
  private holders(): ReadonlyMap<string, XtrId> {
    const first = new Map<string, { readonly xtrId: XtrId; readonly since: number }>();
    for (const [xtrId, { notice }] of this.said) {
      const since = this.core.state.agent(xtrId)?.enrolledAt ?? Number.MAX_VALUE;
      const known = first.get(notice.hostname);
      if (known === undefined || since < known.since) first.set(notice.hostname, { xtrId, since });
    }
    return new Map([...first].map(([hostname, { xtrId }]) => [hostname, xtrId]));
  }

  private labels(xtrId: XtrId, instance: string, { version, place }: ExporterNotice): Record<string, string> {
    const connected = this.core.state.agentState(xtrId).connectedSince !== undefined;
    return {
      // Not the address, which is another one after a roam: the series go on.
      instance,
      xtr_id: xtrId,
      __meta_stayput_version: version,
      __meta_stayput_connected: String(connected),
      __meta_stayput_platform: place?.platform ?? '',
      __meta_stayput_region: place?.region ?? '',
      __meta_stayput_zone: place?.zone ?? '',
      __meta_stayput_instance_id: place?.instanceId ?? '',
    };
  }

  private forget(): void {
    for (const xtrId of this.said.keys()) if (!this.core.state.isEnrolled(xtrId)) this.said.delete(xtrId);
  }
}

/** Undefined when it is not one. */
export function parseExporterNotice(text: string): ExporterNotice | undefined {
  if (text.length > MAX_NOTICE) return undefined;
  try {
    return NOTICE.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

const word = z.string().regex(EXPORTER_WORD);

/** Unknown keys are of a newer agent. */
const NOTICE = z.object({
  type: z.literal('exporter'),
  metrics: z.object({ address: ipAddressText.nullable(), port: z.int().min(1).max(65_535) }).nullable(),
  hostname: word.min(1),
  version: word,
  place: z
    .object({ platform: word, region: word.nullable(), zone: word.nullable(), instanceId: word.nullable() })
    .nullable(),
});

const MAX_NOTICE = 2_048;

/** A service of the system is not what an agent listens with. */
const FIRST_UNPRIVILEGED = 1_024;
