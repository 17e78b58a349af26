/**
 * LISP Shared Extension Message (RFC 9304): a second type in place of flags. What follows belongs to the sub-type.
 *
 * ```
 * |Type=15|      Sub-type (12)    |    extension-specific (16)    |
 * |                 extension-specific ...                        |
 * ```
 */
import { EncodeError, type Reader, type Writer, within } from '../bytes.ts';
import { TYPE } from './header.ts';

export interface SharedExtension {
  readonly type: 'shared-extension';
  /** 12 bits. */
  readonly subType: number;
  /** All that follows the sub-type. */
  readonly data: Uint8Array;
}

export function decodeSharedExtension(reader: Reader): SharedExtension {
  const subType = reader.u16('sub-type') & 0xfff;
  reader.expect(2, 'extension');
  return { type: 'shared-extension', subType, data: reader.rest() };
}

export function encodeSharedExtension({ subType, data }: SharedExtension, writer: Writer): void {
  if (data.length < 2) throw new EncodeError('extension', 'a message has at least 4 octets');
  writer.u16((TYPE.sharedExtension << 12) | within(subType, 0xfff, 'sub-type'), 'sub-type').bytes(data);
}
