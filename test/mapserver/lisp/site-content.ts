/** What sites register, as the map server keeps it. */
import type { SiteContent } from '../../../mapserver/core/records.ts';
import { parseIpAddress } from '../../../proto/address.ts';
import { Writer } from '../../../proto/bytes.ts';
import { ipLispAddress, type LispAddress } from '../../../proto/lisp/afi.ts';
import { encodeRlocRecord, type RlocRecord } from '../../../proto/lisp/eid-record.ts';

export type SiteOptions = Partial<Omit<SiteContent, 'rlocs' | 'rlocCount'>> & {
  readonly rlocs?: readonly RlocRecord[];
};

export function siteContent({ rlocs = [rloc('192.0.2.10')], ...content }: SiteOptions = {}): SiteContent {
  const writer = new Writer();
  for (const each of rlocs) encodeRlocRecord(each, writer);
  const octets = Buffer.from(writer.finish()).toString('base64');
  return { name: 'paris', proxyReply: true, mapVersion: 0, ...content, rlocs: octets, rlocCount: rlocs.length };
}

/** `at`: an IP address as text, or any other. */
export function rloc(at: string | LispAddress, more: Partial<RlocRecord> = {}): RlocRecord {
  return {
    priority: 1,
    weight: 100,
    multicastPriority: 255,
    multicastWeight: 0,
    local: true,
    probed: true,
    reachable: true,
    locator: typeof at === 'string' ? ipLispAddress(parseIpAddress(at)) : at,
    ...more,
  };
}
