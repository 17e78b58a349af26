/** Akamai, formerly Linode. https://techdocs.akamai.com/cloud-computing/docs/metadata-service-api */
import { z } from 'zod';
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

export const AKAMAI: PlatformDriver = {
  name: 'akamai',
  title: 'Akamai (Linode)',
  detect,
  read,
  recognise: recognisedBy(async (access) => askInstance(access, await tokenHeaders(access))),
};

function detect({ sysVendor }: LocalFacts): Detection {
  return sysVendor === 'Linode' || sysVendor === 'Akamai'
    ? certain(`the firmware names ${sysVendor}`)
    : none('the vendor is neither Linode nor Akamai');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const headers = await tokenHeaders(access);
  const instance = present(await askInstance(access, headers), '/v1/instance');
  const facts = new FactsBuilder().text('instance-id', String(instance.id)).text('region', instance.region);
  const network = await access.metadata(SERVICE).json('/v1/network', NETWORK, headers);
  // With the length of the prefix behind it: 203.0.113.5/32.
  const add = (scope: 'local' | 'public', prefix: string): unknown =>
    facts.locator(scope, 'network', prefix.replace(/\/\d{1,3}$/, ''));
  for (const prefix of network?.ipv4?.public ?? []) add('public', prefix);
  for (const prefix of network?.ipv4?.private ?? []) add('local', prefix);
  if (network?.ipv6?.slaac != null) add('public', network.ipv6.slaac);
  for (const tag of instance.tags ?? []) facts.provisionTag(tag);
  return facts.build();
}

function askInstance(access: PlatformAccess, headers: MetadataHeaders): Promise<z.output<typeof INSTANCE> | null> {
  return access.metadata(SERVICE).json('/v1/instance', INSTANCE, headers);
}

async function tokenHeaders(access: PlatformAccess): Promise<MetadataHeaders> {
  const { status, body } = await access
    .metadata(SERVICE)
    .request('PUT', '/v1/token', { 'metadata-token-expiry-seconds': '300' });
  if (status !== 200) throw new PlatformError('status', `PUT /v1/token: status ${status}`);
  if (!/^[\w.=+/-]{1,512}$/.test(body.trim())) throw new PlatformError('malformed', 'PUT /v1/token: not a token');
  return { 'metadata-token': body.trim(), accept: 'application/json' };
}

const SERVICE = ['169.254.169.254', 'fd00:a9fe:a9fe::1'];
const word = z.string().max(256).nullish();
const INSTANCE = z.object({ id: z.int(), region: word, tags: z.array(z.string().max(512)).max(64).nullish() });
const PREFIXES = z.array(z.string().max(64)).max(64).nullish();
const NETWORK = z.object({
  ipv4: z.object({ public: PREFIXES, private: PREFIXES }).nullish(),
  ipv6: z.object({ slaac: word }).nullish(),
});
