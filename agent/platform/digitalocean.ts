/** DigitalOcean. https://docs.digitalocean.com/reference/api/metadata-api/ */
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

export const DIGITALOCEAN: PlatformDriver = {
  name: 'digitalocean',
  title: 'DigitalOcean',
  detect: namedBy('DigitalOcean'),
  read,
  recognise: recognisedBy(ask),
};

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const droplet = present(await ask(access), '/metadata/v1.json');
  const { droplet_id, region, interfaces, floating_ip, reserved_ip } = droplet;
  const facts = new FactsBuilder().text('instance-id', String(droplet_id)).text('region', region);
  for (const { ipv4, ipv6 } of interfaces?.public ?? []) {
    facts.locator('public', 'ipv4', ipv4?.ip_address).locator('public', 'ipv6', ipv6?.ip_address);
  }
  for (const { ipv4 } of interfaces?.private ?? []) facts.locator('local', 'ipv4', ipv4?.ip_address);
  for (const moved of [reserved_ip, floating_ip]) {
    if (moved?.ipv4?.active === true) facts.locator('public', 'reserved_ip', moved.ipv4.ip_address);
  }
  return facts.build();
}

function ask(access: PlatformAccess): Promise<z.output<typeof DROPLET> | null> {
  return access.metadata('169.254.169.254').json('/metadata/v1.json', DROPLET);
}

const word = z.string().max(256).nullish();
const ADDRESS = z.object({ ip_address: word }).nullish();
const INTERFACES = z
  .array(z.object({ ipv4: ADDRESS, ipv6: ADDRESS }))
  .max(16)
  .nullish();
const RESERVED = z.object({ ipv4: z.object({ active: z.boolean().nullish(), ip_address: word }).nullish() }).nullish();
const DROPLET = z.object({
  droplet_id: z.int(),
  region: word,
  interfaces: z.object({ public: INTERFACES, private: INTERFACES }).nullish(),
  floating_ip: RESERVED,
  reserved_ip: RESERVED,
});
