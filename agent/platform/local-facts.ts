/** What a machine can see of its platform without network: firmware tables, hypervisor, labels of disks, devices. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Files of the kernel with one line; null: absent, empty, or not readable by this user. */
export interface LocalFacts {
  readonly sysVendor: string | null;
  readonly productName: string | null;
  readonly chassisAssetTag: string | null;
  readonly boardAssetTag: string | null;
  readonly biosVendor: string | null;
  /** Readable by root only, like the next; the agent's unit leaves copies of both. */
  readonly productSerial: string | null;
  readonly productUuid: string | null;
  readonly hypervisorType: string | null;
  readonly hypervisorUuid: string | null;
  /** Of file systems on disks, as udev sees them; the unit, which hides disks from the agent, leaves a copy of these too. */
  readonly labels: readonly string[];
  readonly xenbus: boolean;
  /** Names below `opt/` that QEMU was told to show. */
  readonly fwCfg: readonly string[];
  /** Firmware tables are those of the host. */
  readonly container: boolean;
  readonly architecture: string;
}

export function readLocalFacts(root = '/', architecture: string = process.arch): LocalFacts {
  const dmi = (name: string): string | null => line(join(root, 'sys/class/dmi/id', name));
  return {
    sysVendor: dmi('sys_vendor'),
    productName: dmi('product_name'),
    chassisAssetTag: dmi('chassis_asset_tag'),
    boardAssetTag: dmi('board_asset_tag'),
    biosVendor: dmi('bios_vendor'),
    productSerial: dmi('product_serial') ?? line(join(root, LEFT, 'product-serial')),
    productUuid: dmi('product_uuid') ?? line(join(root, LEFT, 'product-uuid')),
    hypervisorType: line(join(root, 'sys/hypervisor/type')),
    hypervisorUuid: line(join(root, 'sys/hypervisor/uuid')),
    labels: labels(root),
    xenbus: existsSync(join(root, 'dev/xen/xenbus')) || existsSync(join(root, 'proc/xen/xenbus')),
    fwCfg: names(join(root, FW_CFG)),
    container: existsSync(join(root, 'run/systemd/container')) || existsSync(join(root, 'run/.containerenv')),
    architecture,
  };
}

/** The device that holds the file system with this label, in any case of letters; undefined without one. */
export function deviceOfLabel(root: string, label: string): string | undefined {
  const found = names(join(root, LABELS)).find((name) => unescapeLabel(name).toLowerCase() === label.toLowerCase());
  return found === undefined ? undefined : join(root, LABELS, found);
}

/** There is such a disk, but not for this process. */
export function isHidden(root: string, { labels }: LocalFacts, label: string): boolean {
  const seen = labels.some((each) => each.toLowerCase() === label.toLowerCase());
  return seen && deviceOfLabel(root, label) === undefined;
}

export const FW_CFG = 'sys/firmware/qemu_fw_cfg/by_name/opt';

function labels(root: string): readonly string[] {
  const seen = names(join(root, LABELS));
  return (seen.length > 0 ? seen : lines(join(root, LEFT, 'disk-labels'))).map(unescapeLabel);
}

function lines(path: string): readonly string[] {
  try {
    return readFileSync(path, 'utf8')
      .slice(0, MAX_LINES)
      .split('\n')
      .filter((text) => text !== '')
      .slice(0, MAX_NAMES);
  } catch {
    return [];
  }
}

function line(path: string): string | null {
  try {
    // A value of 0xff octets only is one that nobody set.
    const text = readFileSync(path, 'utf8').slice(0, MAX_LINE).replaceAll('\ufffd', '').replaceAll('\0', '').trim();
    return text === '' ? null : text;
  } catch {
    return null;
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder).slice(0, MAX_NAMES);
  } catch {
    return [];
  }
}

/** udev writes what is not safe in a file name as `\x20`. */
function unescapeLabel(name: string): string {
  return name.replace(/\\x([0-9a-f]{2})/gi, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));
}

const LABELS = 'dev/disk/by-label';
/** By the unit, as root. */
const LEFT = 'run/stayput';
const MAX_LINES = 8192;
const MAX_LINE = 256;
const MAX_NAMES = 256;
