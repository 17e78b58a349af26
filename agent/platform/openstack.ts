/**
 * OpenStack: the metadata service, and the config drive where no service answers.
 * https://docs.openstack.org/nova/latest/user/metadata.html
 */
import { z } from 'zod';
import { readDiskFile } from './disk-file.ts';
import { readEc2Tree } from './ec2-metadata.ts';
import { FactsBuilder } from './facts-builder.ts';
import { deviceOfLabel, type LocalFacts } from './local-facts.ts';
import { parseJson } from './metadata-client.ts';
import {
  certain,
  type Detection,
  likely,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformFacts,
  possible,
  present,
} from './platform.ts';

export const OPENSTACK: PlatformDriver = { name: 'openstack', title: 'OpenStack', detect, read, recognise };

function detect({ productName, chassisAssetTag, labels, architecture }: LocalFacts): Detection {
  for (const mark of [productName, chassisAssetTag]) {
    if (mark !== null && MARKS.has(mark)) return certain(`the firmware says ${mark}`);
  }
  if (labels.some((label) => label.toLowerCase() === CONFIG_DRIVE)) return likely('there is a config drive');
  if (productName === null && architecture !== 'x64' && architecture !== 'ia32') {
    return possible('no mark is made on this architecture');
  }
  return none('neither the product, the chassis nor a config drive is that of OpenStack');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  try {
    return await readService(access);
  } catch (error) {
    const device = deviceOfLabel(access.root, CONFIG_DRIVE);
    if (!(error instanceof PlatformError) || device === undefined) throw error;
    return await readConfigDrive(device);
  }
}

async function readService(access: PlatformAccess): Promise<PlatformFacts> {
  const client = access.metadata(SERVICE);
  const facts = new FactsBuilder();
  const metadata = present(
    await client.json('/openstack/latest/meta_data.json', METADATA),
    '/openstack/latest/meta_data.json',
  );
  addMetadata(facts, metadata);
  addNetworks(facts, await client.json('/openstack/latest/network_data.json', NETWORKS));
  // Floating addresses are in the EC2 tree only, which is not offered everywhere.
  await readEc2Tree(client, facts);
  return facts.build();
}

async function recognise(access: PlatformAccess): Promise<boolean> {
  return (await access.metadata(SERVICE).json('/openstack/latest/meta_data.json', METADATA))?.uuid != null;
}

async function readConfigDrive(device: string): Promise<PlatformFacts> {
  const facts = new FactsBuilder('boot');
  const metadata = await readDiskFile(device, 'openstack/latest/meta_data.json');
  if (metadata === null)
    throw new PlatformError('malformed', 'the config drive has no openstack/latest/meta_data.json');
  addMetadata(facts, parseJson(METADATA, metadata, 'meta_data.json on the config drive'));
  const networks = await readDiskFile(device, 'openstack/latest/network_data.json');
  if (networks !== null) addNetworks(facts, parseJson(NETWORKS, networks, 'network_data.json on the config drive'));
  return facts.build();
}

function addMetadata(facts: FactsBuilder, { uuid, availability_zone, meta }: z.output<typeof METADATA>): void {
  facts.text('instance-id', uuid).text('zone', availability_zone);
  for (const [key, value] of Object.entries(meta ?? {})) facts.provision(key, value);
}

function addNetworks(facts: FactsBuilder, networkData: z.output<typeof NETWORKS> | null): void {
  for (const { ip_address, network_id } of networkData?.networks ?? []) {
    facts.text('network', network_id).locator('local', 'ip_address', ip_address);
  }
}

const SERVICE = ['169.254.169.254', 'fe80::a9fe:a9fe'];
const CONFIG_DRIVE = 'config-2';
const MARKS = new Set([
  'OpenStack Nova',
  'OpenStack Compute',
  'OpenTelekomCloud',
  'SAP CCloud VM',
  'HUAWEICLOUD',
  'Samsung Cloud Platform',
]);
const word = z.string().max(256).nullish();
const METADATA = z.object({
  uuid: word,
  availability_zone: word,
  meta: z.record(z.string().max(255), z.string().max(4096)).nullish(),
});
const NETWORKS = z.object({
  networks: z
    .array(z.object({ ip_address: word, network_id: word }))
    .max(64)
    .nullish(),
});
