/** Scaleway. https://www.scaleway.com/en/docs/instances/how-to/use-metadata-api/ */
import { z } from 'zod';
import { FactsBuilder } from './facts-builder.ts';
import {
  namedBy,
  type PlatformAccess,
  type PlatformDriver,
  type PlatformFacts,
  present,
  recognisedBy,
} from './platform.ts';

export const SCALEWAY: PlatformDriver = {
  name: 'scaleway',
  title: 'Scaleway',
  detect: namedBy('Scaleway'),
  read,
  recognise: recognisedBy(ask),
};

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const server = present(await ask(access), '/conf');
  const zone = server.location?.zone_id;
  const facts = new FactsBuilder()
    .text('instance-id', server.id)
    .text('zone', zone)
    .text('region', zone?.replace(/-\d+$/, ''))
    .locator('local', 'private_ip', server.private_ip);
  const publics = [server.public_ip, server.ipv6, ...(server.public_ips ?? []), ...(server.public_ips_v6 ?? [])];
  for (const each of publics) facts.locator('public', 'public_ips', each?.address);
  for (const tag of server.tags ?? []) facts.provisionTag(tag);
  return facts.build();
}

function ask(access: PlatformAccess): Promise<z.output<typeof SERVER> | null> {
  return access.metadata(SERVICE).json('/conf?format=json', SERVER);
}

const SERVICE = ['169.254.42.42', 'fd00:42::42'];
const word = z.string().max(256).nullish();
const ADDRESS = z.object({ address: word }).nullish();
const SERVER = z.object({
  id: z.string().max(256),
  location: z.object({ zone_id: word }).nullish(),
  private_ip: word,
  public_ip: ADDRESS,
  ipv6: ADDRESS,
  public_ips: z.array(ADDRESS).max(32).nullish(),
  public_ips_v6: z.array(ADDRESS).max(32).nullish(),
  tags: z.array(z.string().max(512)).max(64).nullish(),
});
