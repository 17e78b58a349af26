/** Vultr. https://www.vultr.com/metadata/ */
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

export const VULTR: PlatformDriver = {
  name: 'vultr',
  title: 'Vultr',
  detect: namedBy('Vultr'),
  read,
  recognise: recognisedBy(ask),
};

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const instance = present(await ask(access), '/v1.json');
  const facts = new FactsBuilder()
    .text('instance-id', instance['instance-v2-id'])
    .text('region', instance.region?.regioncode);
  for (const each of instance.interfaces ?? []) {
    const scope = each['network-type'] === 'public' ? 'public' : 'local';
    if (scope === 'local') facts.text('network', each['network-v2-id']);
    for (const { address, additional } of [each.ipv4 ?? {}, each.ipv6 ?? {}]) {
      facts.locator(scope, 'address', address);
      // Of IPv6 these are networks.
      for (const more of additional ?? []) facts.locator(scope, 'additional', more.address);
    }
  }
  return facts.build();
}

function ask(access: PlatformAccess): Promise<z.output<typeof INSTANCE> | null> {
  return access.metadata('169.254.169.254').json('/v1.json', INSTANCE, { 'metadata-token': 'cloudinit' });
}

const word = z.string().max(256).nullish();
const ADDRESSES = z
  .object({
    address: word,
    additional: z
      .array(z.object({ address: word }))
      .max(32)
      .nullish(),
  })
  .nullish();
const INSTANCE = z.object({
  'instance-v2-id': z.string().max(256),
  region: z.object({ regioncode: word }).nullish(),
  interfaces: z
    .array(z.object({ 'network-type': word, 'network-v2-id': word, ipv4: ADDRESSES, ipv6: ADDRESSES }))
    .max(16)
    .nullish(),
});
