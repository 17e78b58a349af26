/**
 * The files of an OVF package: descriptor, manifest with digests, disk; beside each other, or in one OVA, which is a tar
 * archive (ustar) with the descriptor first, the manifest second (DSP0243, 5.3).
 */
import { createHash } from 'node:crypto';
import { copyFileSync, createReadStream, createWriteStream, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { UsageError } from '../../proto/errors.ts';

export interface PackageParts {
  /** Stem of the names of descriptor and manifest. */
  readonly name: string;
  readonly descriptor: string;
  readonly diskPath: string;
  readonly diskName: string;
}

/** Returns the paths that were written. `out` ends in `.ovf` or `.ova`. @throws UsageError */
export async function writePackage(parts: PackageParts, out: string): Promise<readonly string[]> {
  const { name, descriptor, diskPath, diskName } = parts;
  const digest = await fileDigest(diskPath);
  const manifest = `SHA256(${name}.ovf)= ${sha256(descriptor)}\nSHA256(${diskName})= ${digest}\n`;
  if (out.endsWith('.ova')) {
    const size = statSync(diskPath).size;
    if (size > MAX_MEMBER) throw new UsageError(`${diskPath}: too large for an OVA (8 GiB); write an .ovf`);
    await pipeline(
      archive([
        { name: `${name}.ovf`, size: Buffer.byteLength(descriptor), content: () => [Buffer.from(descriptor)] },
        { name: `${name}.mf`, size: Buffer.byteLength(manifest), content: () => [Buffer.from(manifest)] },
        { name: diskName, size, content: () => createReadStream(diskPath) },
      ]),
      createWriteStream(out),
    );
    return [out];
  }
  const folder = dirname(out);
  const disk = join(folder, diskName);
  if (disk !== diskPath) copyFileSync(diskPath, disk);
  const manifestPath = join(folder, `${name}.mf`);
  writeFileSync(out, descriptor);
  writeFileSync(manifestPath, manifest);
  return [out, manifestPath, disk];
}

interface Member {
  readonly name: string;
  readonly size: number;
  readonly content: () => Iterable<Buffer> | AsyncIterable<Buffer>;
}

async function* archive(members: readonly Member[]): AsyncGenerator<Buffer> {
  for (const { name, size, content } of members) {
    yield tarHeader(name, size);
    yield* content();
    const rest = size % BLOCK;
    if (rest !== 0) yield Buffer.alloc(BLOCK - rest);
  }
  yield Buffer.alloc(2 * BLOCK);
}

/** POSIX.1-1988 ustar. */
function tarHeader(name: string, size: number): Buffer {
  const header = Buffer.alloc(BLOCK);
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, '0')}\0`;
  header.write(name, 0, 100, 'utf8');
  header.write(octal(0o644, 7) + octal(0, 7) + octal(0, 7) + octal(size, 11) + octal(0, 11), 100, 'latin1');
  header.write('        0', 148, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  const sum = header.reduce((total, octet) => total + octet, 0);
  header.write(`${octal(sum, 6)} `, 148, 'latin1');
  return header;
}

async function fileDigest(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

const BLOCK = 512;
const MAX_MEMBER = 8 * 1024 ** 3 - 1;
