/** What an OVF descriptor says of a disk image: its format, and how large the disk in it is. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { UsageError } from '../../proto/errors.ts';

export interface DiskImage {
  /** URI of the format, as descriptors name it. */
  readonly format: string;
  /** Of the disk, in octets. */
  readonly capacity: number;
  /** Of the file. */
  readonly fileOctets: number;
  readonly extension: 'vmdk' | 'qcow2';
}

/** @throws UsageError for another format */
export function readDiskImage(path: string): DiskImage {
  const header = Buffer.alloc(HEADER);
  let fileOctets: number;
  try {
    const file = openSync(path, 'r');
    try {
      fileOctets = fstatSync(file).size;
      readSync(file, header, 0, HEADER, 0);
    } finally {
      closeSync(file);
    }
  } catch (cause) {
    throw new UsageError(`${path}: cannot be read (${(cause as Error).message})`, { cause });
  }
  // VMware Virtual Disk Format 5.0: sparse extent header, little endian.
  if (header.toString('latin1', 0, 4) === 'KDMV') {
    const compressed = (header.readUInt32LE(8) & COMPRESSED) !== 0;
    if (!compressed) {
      throw new UsageError(
        `${path}: a VMDK in another form than hypervisors import: qemu-img convert -O vmdk -o subformat=streamOptimized ${path} OUT.vmdk`,
      );
    }
    const capacity = Number(header.readBigUInt64LE(12)) * SECTOR;
    return { format: VMDK, capacity, fileOctets, extension: 'vmdk' };
  }
  // QEMU's docs/interop/qcow2.txt: big endian.
  if (header.toString('latin1', 0, 4) === 'QFI\xfb') {
    if (header.readBigUInt64BE(8) !== 0n) {
      throw new UsageError(
        `${path}: only what differs from its backing file is in it: qemu-img convert -O qcow2 ${path} OUT.qcow2`,
      );
    }
    return { format: QCOW2, capacity: Number(header.readBigUInt64BE(24)), fileOctets, extension: 'qcow2' };
  }
  throw new UsageError(
    `${path}: neither a VMDK nor a QCOW2 image: qemu-img convert -O vmdk -o subformat=streamOptimized ${path} OUT.vmdk`,
  );
}

const HEADER = 512;
const SECTOR = 512;
const COMPRESSED = 1 << 16;
const VMDK = 'http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized';
const QCOW2 = 'http://www.gnome.org/~markmc/qcow-image-format.html';
