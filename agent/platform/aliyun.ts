/** Alibaba Cloud. https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata */
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
import type { MetadataHeaders } from './metadata-client.ts';
import {
  certain,
  type Detection,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformFacts,
  present,
  recognisedBy,
} from './platform.ts';

export const ALIYUN: PlatformDriver = {
  name: 'aliyun',
  title: 'Alibaba Cloud',
  detect,
  read,
  recognise: recognisedBy(askRegion),
};

function detect({ productName }: LocalFacts): Detection {
  return productName === 'Alibaba Cloud ECS'
    ? certain('the firmware says Alibaba Cloud ECS')
    : none('the product is not Alibaba Cloud ECS');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const client = access.metadata(SERVICE);
  const headers = await tokenHeaders(access);
  const instance = present(await client.text(`${TREE}/instance-id`, headers), `${TREE}/instance-id`);
  const [zone, region, vpc, local, publicAddress] = await Promise.all(
    ['zone-id', 'region-id', 'vpc-id', 'private-ipv4', 'eipv4'].map((path) => client.text(`${TREE}/${path}`, headers)),
  );
  return new FactsBuilder()
    .text('instance-id', instance)
    .text('zone', zone)
    .text('region', region)
    .text('network', vpc)
    .locator('local', 'private-ipv4', local)
    .locator('public', 'eipv4', publicAddress)
    .build();
}

/** Others have the same tree, but not this in it. */
async function askRegion(access: PlatformAccess): Promise<string | null> {
  return await access.metadata(SERVICE).text(`${TREE}/region-id`, await tokenHeaders(access));
}

/** An instance may be set to answer without. */
async function tokenHeaders(access: PlatformAccess): Promise<MetadataHeaders> {
  const { status, body } = await access
    .metadata(SERVICE)
    .request('PUT', '/latest/api/token', { [`${TOKEN}-ttl-seconds`]: '300' });
  if (status !== 200) return {};
  if (!/^[\w=+/-]{1,512}$/.test(body.trim())) {
    throw new PlatformError('malformed', 'PUT /latest/api/token: not a token');
  }
  return { [TOKEN]: body.trim() };
}

const SERVICE = '100.100.100.200';
const TREE = '/latest/meta-data';
const TOKEN = 'x-aliyun-ecs-metadata-token';
