/** Google Compute Engine. https://cloud.google.com/compute/docs/metadata/overview */
import { z } from 'zod';
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
import { type MetadataAnswer, type MetadataClient, parseJson } from './metadata-client.ts';
import {
  certain,
  type Detection,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformEvent,
  type PlatformFacts,
  recognisedBy,
} from './platform.ts';

export const GCE: PlatformDriver = {
  name: 'gce',
  title: 'Google Compute Engine',
  detect,
  read,
  recognise: recognisedBy((access) => ask(access.metadata(SERVICE), 'instance/id')),
  events,
  change,
};

function detect({ productName, productSerial }: LocalFacts): Detection {
  if (productName === 'Google Compute Engine' || productName === 'Google') {
    return certain(`the firmware says ${productName}`);
  }
  if (productSerial?.startsWith('GoogleCloud-') === true) return certain('the serial number begins GoogleCloud-');
  return none('neither the product nor the serial number is that of Google');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const client = access.metadata(SERVICE);
  // A number of 64 bits, which JSON would round.
  const id = await ask(client, 'instance/id');
  const text = await ask(client, 'instance/?recursive=true&alt=json');
  if (text === null) throw new PlatformError('malformed', 'the service says nothing of the instance');
  const { zone, networkInterfaces, attributes } = parseJson(INSTANCE, text, 'instance');
  const zoneName = lastPart(zone);
  const facts = new FactsBuilder()
    .text('instance-id', id)
    .text('zone', zoneName)
    .text('region', zoneName?.replace(/-[a-z]$/, ''));
  for (const { ip, ipv6s, network, accessConfigs, forwardedIps } of networkInterfaces ?? []) {
    facts.text('network', network).locator('local', 'ip', ip);
    for (const address of ipv6s ?? []) facts.locator('local', 'ipv6s', address);
    for (const { externalIp } of accessConfigs ?? []) facts.locator('public', 'external-ip', externalIp);
    for (const address of forwardedIps ?? []) facts.locator('public', 'forwarded-ips', address);
  }
  for (const [key, value] of Object.entries(attributes ?? {})) facts.provision(key, value);
  return facts.build();
}

/** Said a minute before a live migration. */
async function events(access: PlatformAccess): Promise<readonly PlatformEvent[]> {
  const action = await ask(access.metadata(SERVICE), 'instance/maintenance-event');
  if (action === null || action === 'NONE') return [];
  if (!/^[A-Z_]{1,64}$/.test(action)) throw new PlatformError('malformed', 'instance/maintenance-event: not a word');
  return [{ id: action, action, notBefore: null }];
}

/** https://cloud.google.com/compute/docs/metadata/querying-metadata#waitforchange */
async function change(access: PlatformAccess, mark: string | null): Promise<string> {
  const wait = mark === null ? '' : `&wait_for_change=true&timeout_sec=${WAIT_S}&last_etag=${encodeURIComponent(mark)}`;
  const path = `instance/?recursive=true&alt=json${wait}`;
  const { headers } = await request(access.metadata(SERVICE), path);
  const etag = headers.etag ?? '';
  if (!/^[\w"/+=-]{1,128}$/.test(etag)) throw new PlatformError('malformed', `GET ${path}: no etag`);
  return etag;
}

/** Google marks its answers, so that others who answer at this address are told apart. */
async function request(client: MetadataClient, path: string): Promise<MetadataAnswer> {
  const answer = await client.request('GET', `/computeMetadata/v1/${path}`, FLAVOR);
  if (answer.headers['metadata-flavor'] !== 'Google') {
    throw new PlatformError('malformed', `GET ${path}: the answer is not marked as Google's`);
  }
  return answer;
}

async function ask(client: MetadataClient, path: string): Promise<string | null> {
  const { status, body } = await request(client, path);
  if (status === 404) return null;
  if (status !== 200) throw new PlatformError('status', `GET ${path}: status ${status}`);
  return body.trim() === '' ? null : body.trim();
}

/** `projects/1/zones/europe-west1-b` → `europe-west1-b` */
function lastPart(path: string | null | undefined): string | undefined {
  return path?.slice(path.lastIndexOf('/') + 1);
}

const SERVICE = ['169.254.169.254', 'fd20:ce::254'];
/** Below the patience of a question that waits. */
const WAIT_S = 50;
const FLAVOR = { 'metadata-flavor': 'Google' };
const word = z.string().max(256).nullish();
const words = z.array(z.string().max(64)).max(64).nullish();
const INSTANCE = z.object({
  zone: word,
  networkInterfaces: z
    .array(
      z.object({
        ip: word,
        ipv6s: words,
        network: word,
        accessConfigs: z
          .array(z.object({ externalIp: word }))
          .max(16)
          .nullish(),
        forwardedIps: words,
      }),
    )
    .max(16)
    .nullish(),
  attributes: z.record(z.string().max(256), z.string()).nullish(),
});
