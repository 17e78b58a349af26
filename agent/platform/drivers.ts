/** All platforms. Of two that are equally sure, the former: clouds before the hypervisors below them. */
import { AKAMAI } from './akamai.ts';
import { ALIYUN } from './aliyun.ts';
import { AZURE } from './azure.ts';
import { CLOUDSTACK } from './cloudstack.ts';
import { DIGITALOCEAN } from './digitalocean.ts';
import { EC2 } from './ec2.ts';
import { EUCALYPTUS } from './eucalyptus.ts';
import { EXOSCALE } from './exoscale.ts';
import { GCE } from './gce.ts';
import { HETZNER } from './hetzner.ts';
import { KVM } from './kvm.ts';
import { NOCLOUD } from './nocloud.ts';
import { OPENNEBULA } from './opennebula.ts';
import { OPENSTACK } from './openstack.ts';
import { ORACLE } from './oracle.ts';
import { OVF } from './ovf.ts';
import type { PlatformDriver } from './platform.ts';
import { SCALEWAY } from './scaleway.ts';
import { UPCLOUD } from './upcloud.ts';
import { VSPHERE } from './vsphere.ts';
import { VULTR } from './vultr.ts';
import { XEN } from './xen.ts';

export const DRIVERS: readonly PlatformDriver[] = [
  EC2,
  AZURE,
  GCE,
  ORACLE,
  DIGITALOCEAN,
  HETZNER,
  VULTR,
  AKAMAI,
  UPCLOUD,
  SCALEWAY,
  ALIYUN,
  EXOSCALE,
  CLOUDSTACK,
  OPENNEBULA,
  OPENSTACK,
  VSPHERE,
  XEN,
  OVF,
  NOCLOUD,
  EUCALYPTUS,
  KVM,
];
