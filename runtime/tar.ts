/**
 * Archives in the format of tar (POSIX.1-1988 "ustar"), of plain files with short names, in memory.
 *
 * A header of 512 octets, then the content filled up with zeros to a multiple of 512; two empty headers at the end.
 */
import { StayputError } from '../proto/errors.ts';

export interface ArchivedFile {
  /** At most 100 octets; relative, with `/`. */
  readonly name: string;
  readonly content: Uint8Array;
}

export class ArchiveError extends StayputError {
  constructor(problem: string) {
    super('STAYPUT_ARCHIVE', problem);
  }
}

/** `time`: of all files, milliseconds since 1970. They are their owner's alone (0600). */
export function packTar(files: readonly ArchivedFile[], time: number): Buffer {
  const blocks = files.flatMap(({ name, content }) => {
    const fill = (BLOCK - (content.length % BLOCK)) % BLOCK;
    return [headerOf(name, content.length, time), content, Buffer.alloc(fill)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)]);
}

/** @throws ArchiveError when it is cut off, damaged, or holds anything but plain files */
export function unpackTar(archive: Buffer): ArchivedFile[] {
  const files: ArchivedFile[] = [];
  for (let at = 0; ; ) {
    const header = archive.subarray(at, at + BLOCK);
    if (header.length < BLOCK) throw new ArchiveError('the archive is cut off');
    if (header.every((octet) => octet === 0)) return files;
    if (checksumOf(header) !== octal(header, CHECKSUM)) throw new ArchiveError('the archive is damaged');
    if (header[TYPE_AT] !== PLAIN) throw new ArchiveError('the archive holds something else than files');
    const size = octal(header, SIZE);
    const content = archive.subarray(at + BLOCK, at + BLOCK + size);
    if (content.length < size) throw new ArchiveError('the archive is cut off');
    files.push({ name: text(header, NAME), content });
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
}

function headerOf(name: string, size: number, time: number): Buffer {
  const header = Buffer.alloc(BLOCK);
  if (Buffer.byteLength(name) > NAME.length) throw new ArchiveError(`the name ${name} is too long for an archive`);
  header.write(name, NAME.at);
  header.write('0000600', 100);
  header.write('0000000', 108);
  header.write('0000000', 116);
  header.write(size.toString(8).padStart(11, '0'), SIZE.at);
  header.write(
    Math.floor(time / 1000)
      .toString(8)
      .padStart(11, '0'),
    136,
  );
  header[TYPE_AT] = PLAIN;
  header.write('ustar\0', 257);
  header.write('00', 263);
  header.write(`${checksumOf(header).toString(8).padStart(6, '0')}\0 `, CHECKSUM.at);
  return header;
}

/** The sum of all octets, those of the sum itself taken as spaces. */
function checksumOf(header: Buffer): number {
  let sum = 0;
  for (const [at, octet] of header.entries()) {
    sum += at >= CHECKSUM.at && at < CHECKSUM.at + CHECKSUM.length ? 0x20 : octet;
  }
  return sum;
}

function octal(header: Buffer, field: Field): number {
  const digits = text(header, field).trim();
  if (!/^[0-7]{1,11}$/.test(digits)) throw new ArchiveError('the archive is damaged');
  return Number.parseInt(digits, 8);
}

function text(header: Buffer, { at, length }: Field): string {
  const field = header.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end < 0 ? length : end);
}

interface Field {
  readonly at: number;
  readonly length: number;
}

const BLOCK = 512;
const NAME = { at: 0, length: 100 };
const SIZE = { at: 124, length: 12 };
const CHECKSUM = { at: 148, length: 8 };
const TYPE_AT = 156;
const PLAIN = 0x30;
