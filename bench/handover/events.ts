/** What happens to the mover, and to whom it happens. */

export const EVENTS = {
  roam: 'the mover gets another address in another cloud',
  move: 'the workload goes to another host with its sockets',
  'agent-restart': 'kill -9 of the agents of both ends, started again at once',
  'dataplane-restart': 'kill -9 of the mover’s data plane, started again at once',
  'locator-loss': 'the uplink in use drops everything, both ways, in silence',
  'locator-loss-in': 'the uplink in use drops what comes to the mover, in silence',
  'locator-loss-out': 'the uplink in use drops what comes from the mover, in silence',
  'roam-map-server-down': 'a roam while the map server is dead',
  'roam-1000': 'a roam of a mover with 1,000 correspondents',
  'move-1000': 'a move of a workload with 1,000 correspondents',
} as const;

export type EventName = keyof typeof EVENTS;

export const EVENT_NAMES = Object.keys(EVENTS) as EventName[];

/** Moments of CLOCK_MONOTONIC in nanoseconds. */
export interface EventTimes {
  /** Just before something was done that can stop traffic. */
  readonly begun: bigint;
  /**
   * From when on the gap counts: for a roam just before the kernel was given the new address and route, with the cable
   * in its place; for a move just before the interface in front of the workload went up; otherwise `begun`.
   */
  readonly counted: bigint;
  /** When the mover's own cable was seen to carry again, if later than `counted`. */
  readonly carried?: bigint;
}

/** Of these the first packet through is waited for, as the way there was interrupted by the event itself. */
export function interrupts(event: EventName): boolean {
  return concernsMany(event) || event === 'roam' || event === 'move' || event === 'roam-map-server-down';
}

/** Of these a thousand correspondents are the only probe. */
export function concernsMany(event: EventName): event is 'roam-1000' | 'move-1000' {
  return event === 'roam-1000' || event === 'move-1000';
}
