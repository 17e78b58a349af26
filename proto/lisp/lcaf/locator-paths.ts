/**
 * Locators in a row or in a tree (RFC 8060).
 *
 * ```
 *   10  explicit locator path   { Rsvd3 (13) L P S | address }   to be passed in this order
 *   13  replication list        { Rsvd3 (16) | Rsvd4 (8) | level (8) | address }
 * ```
 */

import type { LispAddress } from '../afi.ts';
import { bit, isSet } from '../header.ts';
import { type LcafCodec, untilEnd } from './codec.ts';

export interface ExplicitLocatorPath {
  readonly kind: 'explicit-path';
  readonly hops: readonly {
    /** L: the address is an EID, to be looked up. */
    readonly lookup: boolean;
    /** P: to be probed. */
    readonly probe: boolean;
    /** S: may not be left out. */
    readonly strict: boolean;
    readonly address: LispAddress;
  }[];
}

export interface ReplicationList {
  readonly kind: 'replication-list';
  readonly entries: readonly {
    /** In the tree of replicators, from 0. */
    readonly level: number;
    readonly address: LispAddress;
  }[];
}

export const EXPLICIT_PATH: LcafCodec<ExplicitLocatorPath> = {
  type: 10,
  kind: 'explicit-path',
  decode: (body) => ({
    kind: 'explicit-path',
    hops: untilEnd(body, () => {
      const flags = body.reader.u16('hop flags');
      return {
        lookup: isSet(flags, L),
        probe: isSet(flags, P),
        strict: isSet(flags, S),
        address: body.address(),
      };
    }),
  }),
  encode: ({ hops }, { writer, address }) => {
    for (const hop of hops) {
      writer.u16(bit(hop.lookup, L) | bit(hop.probe, P) | bit(hop.strict, S), 'hop flags');
      address(hop.address);
    }
  },
};

export const REPLICATION_LIST: LcafCodec<ReplicationList> = {
  type: 13,
  kind: 'replication-list',
  decode: (body) => ({
    kind: 'replication-list',
    entries: untilEnd(body, () => {
      body.reader.skip(3, 'reserved');
      return { level: body.reader.u8('level'), address: body.address() };
    }),
  }),
  encode: ({ entries }, { writer, address }) => {
    for (const entry of entries) {
      writer.u24(0, 'reserved').u8(entry.level, 'level');
      address(entry.address);
    }
  },
};

const L = 0x0004;
const P = 0x0002;
const S = 0x0001;
