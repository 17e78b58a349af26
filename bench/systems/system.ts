/** A way to carry packets from one host to the other. */
import type { LabProcess } from '../../test/lab/lab-process.ts';
import type { Link } from '../link.ts';

export interface System {
  readonly name: string;
  readonly version: string;
  readonly encrypted: boolean;
  /** Sets both ends up; they need not be able to talk yet. Whatever it starts ends with the link. */
  start(link: Link): Promise<Running>;
}

export interface Running {
  /** Where host a and host b are reached through the system. */
  readonly addressA: string;
  readonly addressB: string;
  /** The interface of host a that the traffic enters. */
  readonly interface: string;
  /** The processes whose CPU time counts, per end; none for what the kernel does itself. */
  readonly processesA: readonly LabProcess[];
  readonly processesB: readonly LabProcess[];
  /** Those of them that touch packets, where these are not all. */
  readonly forwarders?: readonly [LabProcess, LabProcess];
}
