/** Amazon EC2: IMDSv2, and IMDSv1 where the token does not get through. */
import { z } from 'zod';
import { EC2_TREE, readEc2Tree } from './ec2-metadata.ts';
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
import type { MetadataClient, MetadataHeaders } from './metadata-client.ts';
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

export const EC2: PlatformDriver = {
  name: 'ec2',
  title: 'Amazon EC2',
  detect,
  read,
  recognise,
  events,
  eventsEveryMs: 5000,
};

function detect({ sysVendor, hypervisorUuid, productUuid }: LocalFacts): Detection {
  if (sysVendor === 'Amazon EC2') return certain('the firmware names Amazon EC2');
  if (hypervisorUuid !== null && /^ec2/i.test(hypervisorUuid)) return certain('the UUID of the hypervisor begins ec2');
  if (productUuid !== null && /^ec2/i.test(productUuid)) return certain('the UUID of the product begins ec2');
  // SMBIOS 2.6 stores the first group of the UUID in the other order of octets.
  if (productUuid !== null && /^[0-9a-f]{4}2[0-9a-f]ec-/i.test(productUuid)) {
    return certain('the UUID of the product begins ec2, in the other order of octets');
  }
  return none('neither the vendor nor a UUID is that of EC2');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const client = access.metadata(SERVICE);
  const headers = await tokenHeaders(client);
  const facts = new FactsBuilder();
  await readEc2Tree(client, facts, { headers });
  const [region, mac, ipv6, tags] = await Promise.all(
    ['placement/region', 'mac', 'ipv6', 'tags/instance'].map((path) => client.text(`${EC2_TREE}/${path}`, headers)),
  );
  facts.text('region', region).locator('local', 'ipv6', ipv6);
  if (MAC.test(mac ?? '')) {
    const network = `${EC2_TREE}/network/interfaces/macs/${mac}`;
    const [vpc, locals, publics] = await Promise.all(
      ['vpc-id', 'local-ipv4s', 'public-ipv4s'].map((path) => client.text(`${network}/${path}`, headers)),
    );
    facts.text('network', vpc).locator('local', 'local-ipv4s', locals).locator('public', 'public-ipv4s', publics);
  }
  for (const tag of (tags ?? '').split('\n').slice(0, MAX_TAGS)) {
    if (!/^stayput[\w.-]{1,40}$/.test(tag)) continue;
    facts.provision(tag, await client.text(`${EC2_TREE}/tags/instance/${tag}`, headers));
  }
  return facts.build();
}

/** Clones of EC2 have no such document, or an image of another kind in it. */
async function recognise(access: PlatformAccess): Promise<boolean> {
  const client = access.metadata(SERVICE);
  const document = await client.json(
    '/latest/dynamic/instance-identity/document',
    IDENTITY,
    await tokenHeaders(client),
  );
  return document?.imageId.startsWith('ami-') === true;
}

/** Scheduled maintenance, and the notice that a spot instance is about to be taken. */
async function events(access: PlatformAccess): Promise<readonly PlatformEvent[]> {
  const client = access.metadata(SERVICE);
  const headers = await tokenHeaders(client);
  const [scheduled, spot] = await Promise.all([
    client.json(`${EC2_TREE}/events/maintenance/scheduled`, SCHEDULED, headers),
    client.json(`${EC2_TREE}/spot/instance-action`, SPOT, headers),
  ]);
  return [
    ...(scheduled ?? [])
      .filter(({ State }) => State === 'active')
      .map(({ EventId, Code, NotBefore }) => ({ id: EventId, action: Code, notBefore: NotBefore ?? null })),
    ...(spot === null ? [] : [{ id: `spot ${spot.time}`, action: `spot-${spot.action}`, notBefore: spot.time }]),
  ];
}

/**
 * From a container the answer with the token does not arrive (its hop limit is 1), and clones of EC2 know no tokens.
 * Without one, the service answers where it may.
 */
async function tokenHeaders(client: MetadataClient): Promise<MetadataHeaders> {
  try {
    const { status, body } = await client.request('PUT', '/latest/api/token', { [`${TOKEN}-ttl-seconds`]: '300' });
    if (status === 200 && /^[\w=+/-]{1,256}$/.test(body.trim())) return { [TOKEN]: body.trim() };
    if (status === 200) throw new PlatformError('malformed', 'PUT /latest/api/token: not a token');
    return {};
  } catch (error) {
    if (error instanceof PlatformError && error.failure === 'timeout') return {};
    throw error;
  }
}

const SERVICE = ['169.254.169.254', 'fd00:ec2::254'];
const TOKEN = 'x-aws-ec2-metadata-token';
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;
const MAX_TAGS = 64;
const word = z.string().max(128);
const SCHEDULED = z.array(z.object({ EventId: word, Code: word, State: word, NotBefore: word.optional() })).max(64);
const IDENTITY = z.object({ imageId: word });
const SPOT = z.object({ action: word, time: word });
