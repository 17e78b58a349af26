/** All platforms. Of two that are equally sure, the former: services with a mark of their own before hypervisors. */
import { EC2 } from './ec2.ts';
import { OPENSTACK } from './openstack.ts';
import type { PlatformDriver } from './platform.ts';

export const DRIVERS: readonly PlatformDriver[] = [EC2, OPENSTACK];
