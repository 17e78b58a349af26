/**
 * One number for what both ends of a session understand, exchanged when it starts. A peer may differ by one
 * during an upgrade; anything further apart is refused with a message that says which side to upgrade.
 *
 * 1  2026-11-21  first version: register, resolve, subscribe, names, generations
 * 2  2026-11-21  policy: pushed to agents by the map server, given to the data plane
 */
export const CAPABILITY = 2;
/** From which on policy is enforced. */
export const POLICY_CAPABILITY = 2;

export function compatible(peerCapability: number): boolean {
  return Number.isInteger(peerCapability) && Math.abs(peerCapability - CAPABILITY) <= 1;
}
