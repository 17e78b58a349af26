/**
 * Map-versions (RFC 9302): 12 bits that count the changes of a mapping and begin anew after the last. 0 says that the
 * mapping has none, so it is no measure and is left out when they begin anew.
 */
export const NULL_VERSION = 0;

/** Whether `version` comes before `other`, both being versions: it is at most half the circle behind. */
export function isOlderVersion(version: number, other: number): boolean {
  if (version === NULL_VERSION || other === NULL_VERSION || version === other) return false;
  return ((other - version) & 0xfff) <= HALF;
}

const HALF = 0x800;
