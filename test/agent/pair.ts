/** Two agents that have met: what most stories of agents begin with. */
import { strict as assert } from 'node:assert';
import type { Ticket } from '../../agent/core/map-requests.ts';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { type Host, World } from './world.ts';

export const A = '10.77.0.5';
export const B = '10.77.0.6';
export const P = (text: string) => parseIpPrefix(text);
export const ip = parseIpAddress;

/** a has 10.77.0.5 (`db`), b has 10.77.0.6 and has resolved a's. */
export function talking(): { world: World; a: Host; b: Host } {
  const world = new World();
  const a = world.host('a', { eids: [`${A} db`], address: '192.0.2.1' });
  const b = world.host('b', { eids: [B], address: '192.0.2.2' });
  a.connect();
  b.connect();
  b.miss(A);
  return { world, a, b };
}

export function found(host: Host, ticket: Ticket) {
  const answer = host.answers.get(ticket);
  assert.ok(answer?.kind === 'resolution' && answer.resolution.kind === 'found', JSON.stringify(answer));
  return answer.resolution.mapping;
}
