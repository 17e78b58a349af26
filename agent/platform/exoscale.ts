/** Exoscale: the tree of EC2 in its first version. https://community.exoscale.com/product/compute/instances/ */
import { readEc2Tree } from './ec2-metadata.ts';
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
import {
  certain,
  type Detection,
  none,
  type PlatformAccess,
  type PlatformDriver,
  type PlatformFacts,
} from './platform.ts';

export const EXOSCALE: PlatformDriver = { name: 'exoscale', title: 'Exoscale', detect, read };

function detect({ productName }: LocalFacts): Detection {
  return productName?.startsWith('Exoscale') === true
    ? certain(`the firmware says ${productName}`)
    : none('the product is not Exoscale');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const facts = new FactsBuilder();
  await readEc2Tree(access.metadata('169.254.169.254'), facts, { tree: '/1.0/meta-data', zone: 'availability-zone' });
  return facts.build();
}
