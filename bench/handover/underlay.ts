/** The clouds that every system is measured in: a, b (the mover's), c (its peer's), d (the map server's). */
import { type Attachment, Internet } from '../../test/lab/internet.ts';
import { Lab } from '../../test/lab/lab.ts';
import type { EventTimes } from './events.ts';

export interface Conditions {
  /** Between any two clouds, made by the lab's cables. */
  readonly rttMs: number;
  /** Share of packets lost on the way from one cloud to another, 0 to 1. */
  readonly loss: number;
}

export const INNER_MTU = 1420;

export class Underlay {
  readonly lab: Lab;
  readonly internet: Internet;

  private constructor(lab: Lab, internet: Internet) {
    this.lab = lab;
    this.internet = internet;
  }

  /** IPv4 only, so that there is one moment from which a new address can be used. */
  static async build({ rttMs, loss }: Conditions): Promise<Underlay> {
    const lab = await Lab.create({ name: 'handover' });
    try {
      const clouds = ['a', 'b', 'c', 'd'];
      return new Underlay(lab, await Internet.build(lab, { clouds, families: [4], roundTripMs: rttMs, loss }));
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  /** Prepares the roam of a host between the clouds a and b. */
  prepareRoam(attachment: Attachment): () => Promise<EventTimes> {
    const roam = this.internet.prepareRoam(attachment, attachment.cloud.name === 'a' ? 'b' : 'a');
    return async () => {
      const { pulled, usable } = await roam();
      return { begun: pulled, counted: usable };
    };
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}
