/** Hetzner Cloud. https://docs.hetzner.cloud/#server-metadata */
import { FactsBuilder } from './facts-builder.ts';
import { namedBy, type PlatformAccess, type PlatformDriver, type PlatformFacts } from './platform.ts';

export const HETZNER: PlatformDriver = {
  name: 'hetzner',
  title: 'Hetzner Cloud',
  detect: namedBy('Hetzner'),
  read,
  recognise,
};

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const client = access.metadata(SERVICE);
  const facts = new FactsBuilder().text('instance-id', await client.text(`${TREE}/instance-id`));
  const [zone, region, publicAddress, networks] = await Promise.all(
    ['availability-zone', 'region', 'public-ipv4', 'private-networks'].map((path) => client.text(`${TREE}/${path}`)),
  );
  facts.text('zone', zone).text('region', region).locator('public', 'public-ipv4', publicAddress);
  // YAML, of which one line of each network matters: `- ip: 10.0.0.2`.
  for (const line of (networks ?? '').slice(0, MAX_YAML).split('\n')) {
    const [, address] = /^(?:-\s*)?ip:\s*(\S{1,45})$/.exec(line.trim()) ?? [];
    facts.locator('local', 'private-networks', address);
  }
  return facts.build();
}

async function recognise(access: PlatformAccess): Promise<boolean> {
  return /^\d{1,20}$/.test((await access.metadata(SERVICE).text(`${TREE}/instance-id`)) ?? '');
}

const SERVICE = ['169.254.169.254', 'fe80::a9fe:a9fe'];
const TREE = '/hetzner/v1/metadata';
const MAX_YAML = 16 * 1024;
