import type { Board } from './board.ts';
import { DATAPLANE } from './dataplane.ts';
import { DNS } from './dns.ts';
import { FLEET } from './fleet.ts';
import { MOVES } from './moves.ts';

export const BOARDS: readonly Board[] = [FLEET, MOVES, DATAPLANE, DNS];
