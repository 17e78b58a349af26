/**
 * One start of an agent. An identity can be copied with its disk or its memory; the incarnation is what tells the
 * copies apart. It goes with each connection to the map server as `RUN.PROCESS.CONNECTION`.
 */
import { DecodeError } from './errors.ts';

export interface Incarnation {
  /** Starts of the agent so far with this identity, counted on its disk. */
  readonly run: number;
  /** Random, 16 hex digits, drawn at each start. */
  readonly process: string;
  /** Connections of this process so far. */
  readonly connection: number;
}

/** Request header with the incarnation of the agent that connects. */
export const INCARNATION_HEADER = 'stayput-incarnation';
/** Response header of a refusal: the run that is newer than the one refused. */
export const NEWEST_RUN_HEADER = 'stayput-newest-run';

export function formatIncarnation({ run, process, connection }: Incarnation): string {
  return `${run}.${process}.${connection}`;
}

/** @throws DecodeError */
export function parseIncarnation(text: string): Incarnation {
  const [, run, process, connection] = /^(\d{1,15})\.([0-9a-f]{16})\.(\d{1,15})$/.exec(text) ?? [];
  if (process === undefined) throw new DecodeError('incarnation', 0, 'an incarnation is RUN.PROCESS.CONNECTION');
  return { run: Number(run), process, connection: Number(connection) };
}
