/**
 * The OVF descriptor (DSP0243 1.1) of an image with Stayput: one machine with one disk, whose properties are asked for
 * when it is deployed. The hypervisor hands them to the guest in the OVF environment, on a CD (`iso`) or as a variable of
 * the guest (`com.vmware.guestInfo`), where `agent/platform` finds them: there a property is called by class and key,
 * `stayput.token`.
 */
import type { DiskImage } from './disk-image.ts';

export interface Appliance {
  /** Also the stem of the files' names. */
  readonly name: string;
  readonly version: string;
  readonly cpus: number;
  readonly memoryMb: number;
  readonly disk: DiskImage & { readonly fileName: string };
  /** What is filled in already when somebody deploys it. */
  readonly mapServer: string;
}

export function ovfDescriptor(appliance: Appliance): string {
  const { name, version, disk } = appliance;
  return render([
    '<?xml version="1.0" encoding="UTF-8"?>',
    element('Envelope', NAMESPACES, [
      element('References', {}, [
        element('File', { 'ovf:id': 'disk-file', 'ovf:href': disk.fileName, 'ovf:size': disk.fileOctets }),
      ]),
      element('DiskSection', {}, [
        info('The disk of the machine'),
        element('Disk', {
          'ovf:diskId': 'disk',
          'ovf:fileRef': 'disk-file',
          'ovf:capacity': disk.capacity,
          'ovf:capacityAllocationUnits': 'byte',
          'ovf:format': disk.format,
        }),
      ]),
      element('NetworkSection', {}, [
        info('Networks of the machine'),
        element('Network', { 'ovf:name': NETWORK }, [text('Description', 'The underlay: any network, DHCP')]),
      ]),
      element('VirtualSystem', { 'ovf:id': name }, [
        info('A machine with Stayput'),
        text('Name', name),
        element('OperatingSystemSection', { 'ovf:id': LINUX_64 }, [
          info('The guest operating system'),
          text('Description', 'Linux (64 bit)'),
        ]),
        hardware(appliance),
        element('ProductSection', { 'ovf:class': 'stayput' }, [
          info('What the machine joins with at its first start'),
          text('Product', 'Stayput'),
          text('Version', version),
          text('Category', 'Overlay'),
          ...PROPERTIES.map(([key, label, description]) =>
            element(
              'Property',
              {
                'ovf:key': key,
                'ovf:type': 'string',
                'ovf:qualifiers': 'MaxLen(512)',
                'ovf:userConfigurable': 'true',
                ...(key === 'token' ? { 'ovf:password': 'true' } : {}),
                'ovf:value': key === 'map-server' ? appliance.mapServer : '',
              },
              [text('Label', label), text('Description', description)],
            ),
          ),
        ]),
      ]),
    ]),
  ]);
}

/** Devices by the type numbers of CIM; a CD drive, as the transport `iso` needs one. */
function hardware({ name, cpus, memoryMb }: Appliance): Xml {
  let count = 0;
  const item = (values: Readonly<Record<string, string | number>>): Xml => {
    const all = { ...values, InstanceID: ++count };
    const sorted = Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1));
    return element(
      'Item',
      {},
      sorted.map(([key, value]) => text(`rasd:${key}`, value)),
    );
  };
  return element('VirtualHardwareSection', { 'ovf:transport': 'iso com.vmware.guestInfo' }, [
    info('Virtual hardware'),
    element('System', {}, [
      text('vssd:ElementName', 'Virtual Hardware Family'),
      text('vssd:InstanceID', 0),
      text('vssd:VirtualSystemIdentifier', name),
      text('vssd:VirtualSystemType', 'vmx-13'),
    ]),
    item({ ElementName: `${cpus} CPU`, ResourceType: 3, VirtualQuantity: cpus }),
    item({
      ElementName: `${memoryMb} MB of memory`,
      ResourceType: 4,
      AllocationUnits: 'byte * 2^20',
      VirtualQuantity: memoryMb,
    }),
    item({ ElementName: 'SCSI controller', ResourceType: 6, ResourceSubType: 'VirtualSCSI', Address: 0 }),
    item({ ElementName: 'IDE controller', ResourceType: 5, Address: 0 }),
    item({ ElementName: 'Disk', ResourceType: 17, HostResource: 'ovf:/disk/disk', Parent: 3, AddressOnParent: 0 }),
    item({ ElementName: 'CD drive', ResourceType: 15, Parent: 4, AddressOnParent: 0, AutomaticAllocation: 'true' }),
    item({
      ElementName: 'Network',
      ResourceType: 10,
      ResourceSubType: 'VmxNet3',
      Connection: NETWORK,
      AutomaticAllocation: 'true',
      AddressOnParent: 7,
    }),
  ]);
}

interface Xml {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string | number>>;
  readonly content: readonly Xml[] | string;
}

function element(name: string, attributes: Xml['attributes'], content: readonly Xml[] = []): Xml {
  return { name, attributes, content };
}

function text(name: string, content: string | number): Xml {
  return { name, attributes: {}, content: String(content) };
}

function info(words: string): Xml {
  return text('Info', words);
}

function render([declaration, root]: readonly [string, Xml]): string {
  return `${declaration}\n${lines(root, '')}`;
}

function lines({ name, attributes, content }: Xml, indent: string): string {
  const open = [name, ...Object.entries(attributes).map(([key, value]) => `${key}="${escaped(String(value))}"`)].join(
    ' ',
  );
  if (typeof content === 'string') return `${indent}<${open}>${escaped(content)}</${name}>\n`;
  if (content.length === 0) return `${indent}<${open}/>\n`;
  return `${indent}<${open}>\n${content.map((each) => lines(each, `${indent}  `)).join('')}${indent}</${name}>\n`;
}

function escaped(value: string): string {
  return value.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

const NAMESPACES = {
  xmlns: 'http://schemas.dmtf.org/ovf/envelope/1',
  'xmlns:ovf': 'http://schemas.dmtf.org/ovf/envelope/1',
  'xmlns:rasd': 'http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData',
  'xmlns:vssd': 'http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData',
};
const NETWORK = 'VM Network';
/** CIM_OperatingSystem.OSType: Linux 64-bit. */
const LINUX_64 = 101;

/** As `agent/platform` knows them. */
const PROPERTIES = [
  ['map-server', 'Map server', 'URL of the map server, such as https://map.example.org:4342'],
  ['token', 'Join token', 'From "stayput token create"; of no use once the machine has joined'],
  [
    'eid',
    'EID',
    'Address of the machine in the overlay; several separated by commas; empty where the token assigns one',
  ],
  ['name', 'Name', 'Name in the overlay; several separated by commas, or NAME=ADDRESS for one of the EIDs'],
] as const;
