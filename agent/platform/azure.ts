/** Microsoft Azure. https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service */
import { z } from 'zod';
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
import { type MetadataClient, parseJson } from './metadata-client.ts';
import {
  certain,
  type Detection,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformEvent,
  type PlatformFacts,
} from './platform.ts';

export const AZURE: PlatformDriver = {
  name: 'azure',
  title: 'Microsoft Azure',
  detect,
  read,
  recognise,
  events,
  eventsEveryMs: 5000,
};

function detect({ chassisAssetTag }: LocalFacts): Detection {
  if (chassisAssetTag === CHASSIS) return certain('the asset tag of the chassis is that of Azure');
  return none('the asset tag of the chassis is not that of Azure');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const client = access.metadata(SERVICE);
  const { compute, network } = parseJson(INSTANCE, await readInstance(client), 'GET /metadata/instance');
  const facts = new FactsBuilder()
    .text('instance-id', compute.vmId)
    .text('zone', compute.zone)
    .text('region', compute.location);
  let published = false;
  for (const { ipv4, ipv6 } of network?.interface ?? []) {
    for (const { privateIpAddress, publicIpAddress } of [...(ipv4?.ipAddress ?? []), ...(ipv6?.ipAddress ?? [])]) {
      facts.locator('local', 'privateIpAddress', privateIpAddress);
      facts.locator('public', 'publicIpAddress', publicIpAddress);
      published ||= (publicIpAddress ?? '') !== '';
    }
  }
  // Addresses of the standard kind are named here only.
  const balancer = published ? null : await client.json(LOAD_BALANCER, BALANCER, METADATA);
  for (const { frontendIpAddress } of balancer?.loadbalancer?.publicIpAddresses ?? []) {
    facts.locator('public', 'frontendIpAddress', frontendIpAddress);
  }
  for (const { name, value } of compute.tagsList ?? []) facts.provision(name, value);
  return facts.build();
}

async function recognise(access: PlatformAccess): Promise<boolean> {
  const text = await readInstance(access.metadata(SERVICE));
  return parseJson(INSTANCE, text, 'GET /metadata/instance').compute.vmId != null;
}

/** The first question switches them on and may take two minutes: it counts as unanswered. */
async function events(access: PlatformAccess): Promise<readonly PlatformEvent[]> {
  const scheduled = await access.metadata(SERVICE).json(SCHEDULED_EVENTS, SCHEDULED, METADATA);
  return (scheduled?.Events ?? []).map(({ EventId, EventType, NotBefore }) => ({
    id: EventId,
    action: EventType,
    notBefore: NotBefore === undefined || NotBefore === '' ? null : NotBefore,
  }));
}

async function readInstance(client: MetadataClient): Promise<string> {
  for (const version of ['2021-08-01', '2019-06-01']) {
    const { status, body } = await client.request('GET', `/metadata/instance?api-version=${version}`, METADATA);
    if (status === 200) return body;
    if (status !== 400) throw new PlatformError('status', `GET /metadata/instance: status ${status}`);
  }
  throw new PlatformError('status', 'GET /metadata/instance: no version that we know is offered');
}

const SERVICE = '169.254.169.254';
const CHASSIS = '7783-7084-3265-9085-8269-3286-77';
const METADATA = { metadata: 'true' };
const LOAD_BALANCER = '/metadata/loadbalancer?api-version=2020-10-01';
const SCHEDULED_EVENTS = '/metadata/scheduledevents?api-version=2020-07-01';
const word = z.string().max(256).nullish();
const ADDRESSES = z
  .object({
    ipAddress: z
      .array(z.object({ privateIpAddress: word, publicIpAddress: word }))
      .max(64)
      .nullish(),
  })
  .nullish();
const INSTANCE = z.object({
  compute: z.object({
    vmId: word,
    location: word,
    zone: word,
    tagsList: z
      .array(z.object({ name: z.string().max(512), value: z.string().max(512) }))
      .max(64)
      .nullish(),
  }),
  network: z
    .object({
      interface: z
        .array(z.object({ ipv4: ADDRESSES, ipv6: ADDRESSES }))
        .max(16)
        .nullish(),
    })
    .nullish(),
});
const BALANCER = z.object({
  loadbalancer: z
    .object({
      publicIpAddresses: z
        .array(z.object({ frontendIpAddress: word }))
        .max(32)
        .nullish(),
    })
    .nullish(),
});
const SCHEDULED = z.object({
  Events: z
    .array(
      z.object({
        EventId: z.string().max(128),
        EventType: z.string().max(64),
        NotBefore: z.string().max(64).optional(),
      }),
    )
    .max(64)
    .nullish(),
});
