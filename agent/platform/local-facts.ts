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
  /** Readable by root only, like the next; the agent's unit leaves a copy of the latter. */
  readonly productSerial: string | null;
  readonly productUuid: string | null;
  readonly hypervisorType: string | null;
  readonly hypervisorUuid: string | null;
  /** Of file systems on disks, as udev sees them. */
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
    productSerial: dmi('product_serial'),
    productUuid: dmi('product_uuid') ?? line(join(root, 'run/stayput/product-uuid')),
    hypervisorType: line(join(root, 'sys/hypervisor/type')),
    hypervisorUuid: line(join(root, 'sys/hypervisor/uuid')),
    labels: names(join(root, LABELS)).map(unescapeLabel),
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

export const FW_CFG = 'sys/firmware/qemu_fw_cfg/by_name/opt';

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
const MAX_LINE = 256;
const MAX_NAMES = 256;
