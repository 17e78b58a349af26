/**
 * Apache CloudStack: the tree of EC2 on the virtual router of the network, which is the DHCP server or the gateway.
 * https://docs.cloudstack.apache.org/en/latest/adminguide/virtual_machines/user-data.html
 */
import { readEc2Tree } from './ec2-metadata.ts';
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
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

export const CLOUDSTACK: PlatformDriver = { name: 'cloudstack', title: 'Apache CloudStack', detect, read };

function detect({ productName }: LocalFacts): Detection {
  return productName?.startsWith('CloudStack') === true
    ? certain(`the firmware says ${productName}`)
    : none('the product is not CloudStack');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  let problem = new PlatformError(
    'unreachable',
    'no virtual router is known: there is no lease and no default gateway',
  );
  for (const router of routersOnLink(access.root)) {
    try {
      const facts = new FactsBuilder();
      await readEc2Tree(access.metadata(router), facts, { zone: 'availability-zone' });
      return facts.build();
    } catch (error) {
      if (!(error instanceof PlatformError)) throw error;
      problem = error;
    }
  }
  throw problem;
}
