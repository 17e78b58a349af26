/** What all nodes of the simulated overlay agree on. */
import { parseIpPrefix } from '../../proto/address.ts';

export const OVERLAY = [parseIpPrefix('10.77.0.0/16')];
