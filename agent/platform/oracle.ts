/**
 * Oracle Cloud Infrastructure. It tells no public address: peers reach the host by the one that the map server sees.
 * https://docs.oracle.com/iaas/Content/Compute/Tasks/gettingmetadata.htm
 */
import { z } from 'zod';
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
import {
  certain,
  type Detection,
  none,
  type PlatformAccess,
  type PlatformDriver,
  type PlatformFacts,
  present,
} from './platform.ts';

export const ORACLE: PlatformDriver = { name: 'oracle', title: 'Oracle Cloud', detect, read, recognise };

function detect({ chassisAssetTag }: LocalFacts): Detection {
  if (chassisAssetTag === 'OracleCloud.com') return certain('the asset tag of the chassis is OracleCloud.com');
  return none('the asset tag of the chassis is not OracleCloud.com');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const client = access.metadata(SERVICE);
  const instance = present(await client.json('/opc/v2/instance/', INSTANCE, AUTHORIZATION), '/opc/v2/instance/');
  const facts = new FactsBuilder()
    .text('instance-id', instance.id)
    .text('zone', instance.availabilityDomain)
    .text('region', instance.canonicalRegionName ?? instance.region);
  for (const { privateIp, ipv6Addresses } of (await client.json('/opc/v2/vnics/', VNICS, AUTHORIZATION)) ?? []) {
    facts.locator('local', 'privateIp', privateIp);
    for (const address of ipv6Addresses ?? []) facts.locator('local', 'ipv6Addresses', address);
  }
  for (const [key, value] of Object.entries({ ...instance.freeformTags, ...instance.metadata })) {
    if (typeof value === 'string') facts.provision(key, value);
  }
  return facts.build();
}

async function recognise(access: PlatformAccess): Promise<boolean> {
  const instance = await access.metadata(SERVICE).json('/opc/v2/instance/', INSTANCE, AUTHORIZATION);
  return instance?.id?.startsWith('ocid1.') === true;
}

const SERVICE = ['169.254.169.254', 'fd00:c1::a9fe:a9fe'];
const AUTHORIZATION = { authorization: 'Bearer Oracle' };
const word = z.string().max(256).nullish();
const INSTANCE = z.object({
  id: word,
  availabilityDomain: word,
  region: word,
  canonicalRegionName: word,
  metadata: z.record(z.string().max(256), z.unknown()).nullish(),
  freeformTags: z.record(z.string().max(256), z.unknown()).nullish(),
});
const VNICS = z
  .array(z.object({ privateIp: word, ipv6Addresses: z.array(z.string().max(64)).max(64).nullish() }))
  .max(64);
