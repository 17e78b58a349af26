/**
 * Apache CloudStack: the tree of EC2 on the virtual router of the network, which is the DHCP server or the gateway.
 * https://docs.cloudstack.apache.org/en/latest/adminguide/virtual_machines/user-data.html
 */
import { EC2_TREE, readEc2Tree } from './ec2-metadata.ts';
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
import type { MetadataClient } from './metadata-client.ts';
import {
  certain,
  type Detection,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformFacts,
} from './platform.ts';
import { routersOnLink } from './routers.ts';

export const CLOUDSTACK: PlatformDriver = { name: 'cloudstack', title: 'Apache CloudStack', detect, read, recognise };

function detect({ productName }: LocalFacts): Detection {
  return productName?.startsWith('CloudStack') === true
    ? certain(`the firmware says ${productName}`)
    : none('the product is not CloudStack');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  return await ofAnyRouter(access, async (client) => {
    const facts = new FactsBuilder();
    await readEc2Tree(client, facts, { zone: 'availability-zone' });
    return facts.build();
  });
}

async function recognise(access: PlatformAccess): Promise<boolean> {
  const identifier = await ofAnyRouter(access, (client) => client.text(`${EC2_TREE}/cloud-identifier`));
  return identifier?.startsWith('CloudStack-') === true;
}

/** From the first router that answers, in their order; all are asked at once. @throws PlatformError */
async function ofAnyRouter<T>(access: PlatformAccess, ask: (client: MetadataClient) => Promise<T>): Promise<T> {
  let problem = new PlatformError(
    'unreachable',
    'no virtual router is known: there is no lease and no default gateway',
  );
  const answers = routersOnLink(access.root).map(async (router) => await ask(access.metadata(router)));
  // Nobody waits for those after the first that comes: they end with the access.
  for (const answer of answers) answer.catch(() => undefined);
  for (const answer of answers) {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof PlatformError)) throw error;
      problem = error;
    }
  }
  throw problem;
}
