/** A CD image with files, as hypervisors make them for a guest: ISO 9660 with the names of Joliet or plain ones. */

export interface IsoOptions {
  /** Without: names in capitals with a version, as old tools write them. */
  readonly joliet?: boolean;
}

export function isoImage(
  files: Readonly<Record<string, string | Uint8Array>>,
  { joliet = true }: IsoOptions = {},
): Buffer {
  const root: Folder = new Map();
  for (const [path, content] of Object.entries(files)) {
    const names = path.split('/');
    const last = names.pop() ?? '';
    let folder = root;
    for (const name of names) {
      const inner = folder.get(name) ?? (new Map() as Folder);
      folder.set(name, inner);
      folder = inner as Folder;
    }
    folder.set(last, Buffer.from(content));
  }
  const sectors: Buffer[] = Array.from({ length: FIRST_FREE }, () => Buffer.alloc(SECTOR));
  const { sector, octets } = place(root, sectors, joliet);
  const descriptors = joliet ? [1, 2, 255] : [1, 255];
  for (const [i, type] of descriptors.entries()) {
    const descriptor = sectors[16 + i]!;
    descriptor[0] = type;
    descriptor.write('CD001\u0001', 1, 'latin1');
    if (type === 2) descriptor.write('%/E', 88, 'latin1');
    if (type !== 255) record(Buffer.from([0]), sector, octets, true).copy(descriptor, 156);
  }
  return Buffer.concat(sectors);
}

type Folder = Map<string, Folder | Buffer>;

function place(node: Folder | Buffer, sectors: Buffer[], joliet: boolean): { sector: number; octets: number } {
  const content = Buffer.isBuffer(node) ? node : folderContent(node, sectors, joliet);
  const sector = sectors.length;
  sectors.push(Buffer.concat([content], Math.max(1, Math.ceil(content.length / SECTOR)) * SECTOR));
  // One push may hold several sectors: what follows is counted by them.
  for (let rest = content.length - SECTOR; rest > 0; rest -= SECTOR) sectors.push(Buffer.alloc(0));
  return { sector, octets: content.length };
}

function folderContent(folder: Folder, sectors: Buffer[], joliet: boolean): Buffer {
  const records = [...folder].map(([name, node]) => {
    const { sector, octets } = place(node, sectors, joliet);
    const isFolder = !Buffer.isBuffer(node);
    const plain = isFolder ? name.toUpperCase() : `${name.toUpperCase()};1`;
    const bytes = joliet ? Buffer.from(name, 'utf16le').swap16() : Buffer.from(plain, 'latin1');
    return record(bytes, sector, octets, isFolder);
  });
  const pages: Buffer[] = [Buffer.alloc(0)];
  for (const each of records) {
    if (pages[pages.length - 1]!.length + each.length > SECTOR) pages.push(Buffer.alloc(0));
    pages[pages.length - 1] = Buffer.concat([pages[pages.length - 1]!, each]);
  }
  return Buffer.concat(pages.map((page) => Buffer.concat([page], SECTOR)));
}

function record(name: Buffer, sector: number, octets: number, folder: boolean): Buffer {
  const bytes = Buffer.alloc(33 + name.length + ((33 + name.length) % 2));
  bytes[0] = bytes.length;
  bytes.writeUInt32LE(sector, 2);
  bytes.writeUInt32LE(octets, 10);
  bytes[25] = folder ? 2 : 0;
  bytes[32] = name.length;
  name.copy(bytes, 33);
  return bytes;
}

const SECTOR = 2048;
const FIRST_FREE = 20;
