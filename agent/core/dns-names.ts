/**
 * What a name of the overlay's zone answers, from what the map server says of it.
 *
 * Wildcards, empty names and what is below a delegation are found by the map server; here a record set is chosen, and
 * the EIDs are put in order: by a draw without replacement in which each has its weight as its chance. An address that
 * nobody answers for has the weight 0 and is left out while there is another. An alias leads on to its target, which
 * whoever asks is to look up: inside the zone by the next step, outside of it by the forwarder.
 */
import { type IpAddress, ipFamily } from '../../proto/address.ts';
import { TYPE } from '../../proto/dns/message.ts';
import {
  absoluteTarget,
  DEFAULT_WEIGHT,
  type NameServer,
  NO_RECORDS,
  type ZoneData,
} from '../../proto/dns/record-sets.ts';
import type { DnsRecord, DnsRecordData } from '../../proto/dns/reply.ts';

/** The aliases that were followed so far, and to where. */
export interface Aliases {
  readonly records: readonly DnsRecord[];
  /** The whole domain name at which they end; null: none was followed. */
  readonly end: string | null;
}

export type NameStep =
  /** Empty: the name exists, and has none of the type. */
  | { readonly kind: 'records'; readonly records: readonly DnsRecord[] }
  /** `target` is relative to the zone, or ends in a dot. */
  | { readonly kind: 'alias'; readonly aliases: Aliases; readonly target: string }
  | { readonly kind: 'delegated'; readonly cut: string; readonly servers: readonly NameServer[] };

/** `random`: from 0 to below 1. */
export function stepAt(
  type: number,
  addresses: readonly IpAddress[],
  data: ZoneData | undefined,
  aliases: Aliases,
  zone: string,
  random: () => number,
): NameStep {
  const { ttl, cname, srv, txt, ns } = data?.records ?? NO_RECORDS;
  if (data?.cut != null) return { kind: 'delegated', cut: data.cut, servers: ns };
  const owner = aliases.end === null ? {} : { owner: aliases.end };
  const record = (content: DnsRecordData): DnsRecord => ({
    ...content,
    ...owner,
    ownerSkip: 0,
    ttl: ttl ?? ANSWER_TTL,
  });
  const weighed = addresses.map((address, i) => ({ address, weight: data?.weights[i] ?? DEFAULT_WEIGHT }));
  const ofFamily = (family: 4 | 6): DnsRecord[] =>
    drawn(
      weighed.filter(({ address }) => ipFamily(address) === family),
      random,
    ).map((address) => record({ type: family === 4 ? 'A' : 'AAAA', address }));
  if (cname !== null) {
    const target = absoluteTarget(cname, zone);
    const alias = record({ type: 'CNAME', target });
    if (type === TYPE.cname || type === TYPE.any) return { kind: 'records', records: [alias] };
    return { kind: 'alias', aliases: { records: [...aliases.records, alias], end: target }, target: cname };
  }
  const sets: readonly (readonly [number, () => DnsRecord[]])[] = [
    [TYPE.a, () => ofFamily(4)],
    [TYPE.aaaa, () => ofFamily(6)],
    [TYPE.srv, () => srv.map((each) => record({ type: 'SRV', ...each, target: absoluteTarget(each.target, zone) }))],
    [TYPE.txt, () => txt.map((text) => record({ type: 'TXT', text }))],
  ];
  // ANY gets one RRset (RFC 8482).
  for (const [of, records] of sets) {
    if (type !== of && type !== TYPE.any) continue;
    const found = records();
    if (found.length > 0) return { kind: 'records', records: found };
  }
  return { kind: 'records', records: [] };
}

function drawn(
  candidates: readonly { readonly address: IpAddress; readonly weight: number }[],
  random: () => number,
): IpAddress[] {
  const well = candidates.filter(({ weight }) => weight > 0);
  const left = well.length > 0 ? well : candidates.map(({ address }) => ({ address, weight: DEFAULT_WEIGHT }));
  const order: IpAddress[] = [];
  while (left.length > 0) {
    let ticket = random() * left.reduce((sum, { weight }) => sum + weight, 0);
    let index = 0;
    for (; index < left.length - 1; index++) {
      ticket -= left[index]?.weight ?? 0;
      if (ticket < 0) break;
    }
    const [next] = left.splice(index, 1);
    if (next !== undefined) order.push(next.address);
  }
  return order;
}

/** Seconds. An EID keeps its address when it moves, so only a change of membership has to wait for it. */
export const ANSWER_TTL = 30;
export const MAX_ALIASES = 8;
export const NO_ALIASES: Aliases = { records: [], end: null };
