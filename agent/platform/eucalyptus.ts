/** Eucalyptus: the tree of EC2 without tokens, on machines that look like any of QEMU. */
import { EC2_TREE, readEc2Tree } from './ec2-metadata.ts';
import { FactsBuilder } from './facts-builder.ts';
import { isQemu } from './kvm.ts';
import type { LocalFacts } from './local-facts.ts';
import {
  type Detection,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformFacts,
  possible,
} from './platform.ts';

export const EUCALYPTUS: PlatformDriver = { name: 'eucalyptus', title: 'Eucalyptus', detect, read, recognise };

function detect(facts: LocalFacts): Detection {
  return isQemu(facts) ? possible('a QEMU machine, and Eucalyptus makes no mark') : none('not a QEMU machine');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const client = access.metadata(SERVICE);
  if (!(await recognise(access))) {
    throw new PlatformError('malformed', 'what answers is not Eucalyptus: its images are called emi-…');
  }
  const facts = new FactsBuilder();
  await readEc2Tree(client, facts);
  return facts.build();
}

async function recognise(access: PlatformAccess): Promise<boolean> {
  return (await access.metadata(SERVICE).text(`${EC2_TREE}/ami-id`))?.startsWith('emi-') === true;
}

const SERVICE = '169.254.169.254';
