/**
 * The metadata tree that EC2 introduced and others took over: one plain text value at each path.
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html
 */
import type { FactsBuilder } from './facts-builder.ts';
import type { MetadataClient, MetadataHeaders } from './metadata-client.ts';

export const EC2_TREE = '/latest/meta-data';

/** What all of them have: instance, zone, local and public IPv4 address. @throws PlatformError */
export async function readEc2Tree(
  client: MetadataClient,
  facts: FactsBuilder,
  { headers = {}, tree = EC2_TREE, zone = 'placement/availability-zone' }: Ec2TreeOptions = {},
): Promise<void> {
  // The first alone: a service that does not answer is asked once, not five times.
  facts.text('instance-id', await client.text(`${tree}/instance-id`, headers));
  const [zoneName, local, publicAddress] = await Promise.all(
    [zone, 'local-ipv4', 'public-ipv4'].map((path) => client.text(`${tree}/${path}`, headers)),
  );
  facts.text('zone', zoneName).locator('local', 'local-ipv4', local).locator('public', 'public-ipv4', publicAddress);
}

export interface Ec2TreeOptions {
  readonly headers?: MetadataHeaders;
  readonly tree?: string;
  /** Where in the tree the zone is. */
  readonly zone?: string;
}
