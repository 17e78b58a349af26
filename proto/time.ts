/** A duration in milliseconds. */
export type Millis = number;

/** A point on a monotonic clock, in milliseconds; only differences mean anything. Cores get it as `now`. */
export type Instant = number;

/** Milliseconds since the Unix epoch; for records that outlive a process. */
export type WallClock = number;

export const seconds = (n: number): Millis => n * 1000;
export const minutes = (n: number): Millis => n * 60_000;
