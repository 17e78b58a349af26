/** How many mappings go into one message: a frame has at most 64 KiB, and a message at most 255 records. */
import { encodedSize } from '../../proto/dns/record-sets.ts';
import type { Mapping } from '../../proto/mapping.ts';

/** Parts that fit into a frame each. */
export function chunked(mappings: readonly Mapping[]): Mapping[][] {
  const parts: Mapping[][] = [];
  let size = MAX_SIZE;
  for (const mapping of mappings) {
    const part = parts.at(-1);
    size += sizeOf([mapping]);
    if (part !== undefined && size <= MAX_SIZE && part.length < MAX_RECORDS) {
      part.push(mapping);
      continue;
    }
    parts.push([mapping]);
    size = sizeOf([mapping]);
  }
  return parts;
}

/** Answers to one registration, without the names of others if they would not fit into a frame. */
export function bounded(answers: readonly Mapping[]): readonly Mapping[] {
  return sizeOf(answers) <= MAX_SIZE ? answers : answers.map((mapping) => ({ ...mapping, names: [] }));
}

export function fitsFrame(mappings: readonly Mapping[]): boolean {
  return mappings.length <= MAX_RECORDS && sizeOf(mappings) <= MAX_SIZE;
}

/** Octets on the wire, at most. */
function sizeOf(mappings: readonly Mapping[]): number {
  let size = 64;
  for (const { eid, locators, names, targets, zone } of mappings) {
    size += 120 + (eid.kind === 'name' ? eid.name.length : 0) + locators.length * 110 + targets.length * 26;
    if (zone !== undefined) size += 32 + encodedSize(zone.records) + (zone.cut?.length ?? 0);
    for (const name of names) size += 12 + name.length;
  }
  return size;
}

const MAX_SIZE = 60_000;
const MAX_RECORDS = 255;
