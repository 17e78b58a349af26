/**
 * What the forwarder answers with: an upstream's message, just arrived or out of the cache, or a failure. An answer out
 * of the cache is as old as it says, or has expired and is marked (RFC 8767 section 4).
 */
import { type DnsMessage, type DnsQuery, EDE, RCODE } from '../../proto/dns/message.ts';
import type { DnsReply } from '../../proto/dns/reply.ts';
import type { Instant } from '../../proto/time.ts';
import type { Cached, CacheEntry } from './dns-cache.ts';

/** Where an answer came from. */
export type CacheResult = 'hit' | 'miss' | 'stale' | 'failure';

export type Forwarded =
  | {
      readonly kind: 'message';
      readonly cache: CacheResult;
      readonly message: DnsMessage;
      /** Seconds. */
      readonly age: number;
      readonly authenticData: boolean;
      readonly stale?: DnsReply['extendedError'];
      /** What it is from, while it may be given again as it is. */
      readonly entry?: CacheEntry;
    }
  | { readonly kind: 'reply'; readonly cache: CacheResult; readonly reply: DnsReply };

export function fresh(
  { message, entry, exact }: Extract<Cached, { entry: CacheEntry }>,
  query: DnsQuery,
  now: Instant,
): Forwarded {
  const age = Math.floor((now - entry.stored) / 1000);
  const authenticData = showsAuthentic(message, entry.trusted, query);
  return { kind: 'message', cache: 'hit', message, age, authenticData, ...(exact ? { entry } : {}) };
}

export function stale({ message, trusted }: CacheEntry, query: DnsQuery): Forwarded {
  const code = message.rcode === RCODE.nxDomain ? EDE.staleNxDomain : EDE.stale;
  return {
    ...{ kind: 'message', cache: 'stale', message, age: 0, authenticData: showsAuthentic(message, trusted, query) },
    stale: { code, text: 'no upstream resolver answers' },
  };
}

/** RFC 6840 section 5.8: AD only for those who asked. */
export function showsAuthentic(message: DnsMessage, trusted: boolean, query: DnsQuery): boolean {
  return message.authenticData && trusted && (query.authenticData || (query.edns?.dnssecOk ?? false));
}
