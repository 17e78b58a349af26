/** The bits of word 0 of each control message, with the names that RFCs, drafts and other implementations give them. */

export interface MessageBit {
  readonly mask: number;
  readonly name: string;
  readonly meaning: string;
}

export interface SetBits {
  readonly names: readonly MessageBit[];
  /** Set, and nobody's that we know of. */
  readonly unknown: number;
}

/** By the message's type; empty without a word 0. */
export function setBits(message: Uint8Array): SetBits {
  if (message.length < 4) return { names: [], unknown: 0 };
  const word = new DataView(message.buffer, message.byteOffset).getUint32(0);
  const layout = LAYOUTS[word >>> 28];
  if (layout === undefined) return { names: [], unknown: 0 };
  const known = layout.bits.reduce((mask, bit) => mask | bit.mask, layout.numbers | 0xf000_0000);
  return { names: layout.bits.filter(({ mask }) => (word & mask) !== 0), unknown: (word & ~known) >>> 0 };
}

interface Layout {
  /** Where word 0 has counts. */
  readonly numbers: number;
  readonly bits: readonly MessageBit[];
}

function bit(mask: number, name: string, meaning: string): MessageBit {
  return { mask, name, meaning };
}

const NOTIFY: Layout = {
  numbers: 0xff,
  bits: [bit(0x0800_0000, 'I', 'xTR-ID present'), bit(0x0400_0000, 'R', 'for an RTR (NAT draft)')],
};

const LAYOUTS: Readonly<Record<number, Layout>> = {
  1: {
    numbers: 0x1fff,
    bits: [
      bit(0x0800_0000, 'A', 'authoritative answer wanted'),
      bit(0x0400_0000, 'M', 'map-data present'),
      bit(0x0200_0000, 'P', 'RLOC-probe'),
      bit(0x0100_0000, 'S', 'solicit-map-request'),
      bit(0x0080_0000, 'p', 'from a proxy ITR'),
      bit(0x0040_0000, 's', 'SMR-invoked'),
      bit(0x0020_0000, 'R', 'mobile node (LISP-MN)'),
      bit(0x0010_0000, 'I', 'xTR-ID present'),
      bit(0x0000_8000, 'N', 'decentralised NAT (lispers.net)'),
      bit(0x0000_4000, 'L', 'local xTR'),
      bit(0x0000_2000, 'D', 'no Map-Reply wanted'),
    ],
  },
  2: {
    numbers: 0xff,
    bits: [
      bit(0x0800_0000, 'P', 'answers an RLOC-probe'),
      bit(0x0400_0000, 'E', 'echo-nonce capable'),
      bit(0x0200_0000, 'S', 'LISP-SEC authentication data present'),
    ],
  },
  3: {
    numbers: 0xff,
    bits: [
      bit(0x0800_0000, 'P', 'proxy Map-Reply'),
      bit(0x0400_0000, 'S', 'LISP-SEC capable'),
      bit(0x0200_0000, 'I', 'xTR-ID present'),
      bit(0x0100_0000, 'R', 'for an RTR (NAT draft, OOR)'),
      bit(0x0000_2000, 'e', 'encrypted (lispers.net)'),
      bit(0x0000_1000, 'E', 'EID-notify'),
      bit(0x0000_0800, 'T', 'TTL is the time-out'),
      bit(0x0000_0400, 'a', 'merge'),
      bit(0x0000_0200, 'R', 'mobile node (LISP-MN)'),
      bit(0x0000_0100, 'M', 'Map-Notify wanted'),
    ],
  },
  4: NOTIFY,
  5: NOTIFY,
  6: { numbers: 0xff, bits: [] },
  7: { numbers: 0, bits: [bit(0x0800_0000, 'R', 'reply')] },
  8: {
    numbers: 0,
    bits: [
      bit(0x0800_0000, 'S', 'authentication data present'),
      bit(0x0400_0000, 'D', 'from a DDT client'),
      bit(0x0200_0000, 'E', 'to be forwarded to the ETR'),
      bit(0x0100_0000, 'M', 'for the map server'),
      bit(0x0040_0000, 'R', 'for an RTR (NAT draft)'),
      bit(0x0020_0000, 'N', 'relayed by an RTR (NAT draft)'),
    ],
  },
  15: { numbers: 0x0fff_ffff, bits: [] },
};
