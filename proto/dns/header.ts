/** The head of every DNS message (RFC 1035 section 4.1.1), and what its numbers mean. */

/** Octets. */
export const HEADER_SIZE = 12;

/** AD and CD are of RFC 4035. */
export const FLAG = {
  qr: 0x8000,
  aa: 0x0400,
  tc: 0x0200,
  rd: 0x0100,
  ra: 0x0080,
  ad: 0x0020,
  cd: 0x0010,
} as const;

/** In the word of the flags. */
export const OPCODE_MASK = 0x7800;

export const OPCODE = { query: 0, notify: 4, update: 5 } as const;

export const CLASS = { in: 1, none: 254, any: 255 } as const;
