/** How one type of LCAF is read and written; `../lcaf.ts` has the frame around it and the list of them. */
import type { Reader, Writer } from '../../bytes.ts';
import type { LispAddress } from '../afi.ts';

export interface LcafCodec<T extends { readonly kind: string }> {
  readonly type: number;
  readonly kind: T['kind'];
  decode(body: LcafBody): T;
  encode(lcaf: T, into: LcafTarget): void;
  /** Octet Rsvd2 of the frame, for the types that use it. */
  rsvd2?(lcaf: T): number;
}

export interface LcafBody {
  readonly reader: Reader;
  readonly rsvd2: number;
  /** Reads an address with its AFI, one level deeper. */
  readonly address: () => LispAddress;
}

export interface LcafTarget {
  readonly writer: Writer;
  readonly address: (address: LispAddress) => void;
}

/** Reads until the body ends. Each item must take octets, so their number is bounded by the body's. */
export function untilEnd<T>({ reader }: LcafBody, item: () => T): T[] {
  const items: T[] = [];
  while (reader.remaining > 0) items.push(item());
  return items;
}
