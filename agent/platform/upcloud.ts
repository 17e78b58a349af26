/** UpCloud. https://upcloud.com/docs/guides/upcloud-metadata-service/ */
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

export const UPCLOUD: PlatformDriver = {
  name: 'upcloud',
  title: 'UpCloud',
  detect: namedBy('UpCloud'),
  read,
  recognise: recognisedBy(ask),
};

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const server = present(await ask(access), '/metadata/v1.json');
  const facts = new FactsBuilder().text('instance-id', server.instance_id).text('region', server.region);
  for (const { type, network_id, ip_addresses } of server.network?.interfaces ?? []) {
    if (type === 'private') facts.text('network', network_id);
    for (const { address } of ip_addresses ?? [])
      facts.locator(type === 'public' ? 'public' : 'local', 'address', address);
  }
  for (const tag of server.tags ?? []) facts.provisionTag(tag);
  return facts.build();
}

function ask(access: PlatformAccess): Promise<z.output<typeof SERVER> | null> {
  return access.metadata('169.254.169.254').json('/metadata/v1.json', SERVER);
}

const word = z.string().max(256).nullish();
const SERVER = z.object({
  cloud_name: z.literal('upcloud'),
  instance_id: word,
  region: word,
  network: z
    .object({
      interfaces: z
        .array(
          z.object({
            type: word,
            network_id: word,
            ip_addresses: z
              .array(z.object({ address: word }))
              .max(32)
              .nullish(),
          }),
        )
        .max(16)
        .nullish(),
    })
    .nullish(),
  tags: z.array(z.string().max(512)).max(64).nullish(),
});
