/** The same addresses in fewer prefixes: what another prefix contains is left out, and two halves become their whole. */
import { type IpFamily, type IpPrefix, ipFamily, prefixAddress, prefixLength } from '../../../proto/address.ts';
import { nodePrefix, type PrefixNode, prefixNode } from '../../../proto/prefix-node.ts';

/** In no particular order, the same for the same input. */
export function aggregated(prefixes: Iterable<IpPrefix>): IpPrefix[] {
  const families: Record<IpFamily, Levels> = { 4: new Map(), 6: new Map() };
  for (const prefix of prefixes) {
    enter(families[ipFamily(prefixAddress(prefix))], prefixLength(prefix), prefixNode(prefix), prefix);
  }
  return [...outermost(families[4], 4), ...outermost(families[6], 6)];
}

/** Nodes by their length, each with its text where that is known. */
type Levels = Map<number, Map<PrefixNode, IpPrefix | null>>;

function enter(levels: Levels, length: number, node: PrefixNode, prefix: IpPrefix | null): void {
  const level = levels.get(length);
  if (level === undefined) levels.set(length, new Map([[node, prefix]]));
  else level.set(node, prefix);
}

function outermost(levels: Levels, family: IpFamily): IpPrefix[] {
  for (let length = Math.max(...levels.keys(), 0); length > 0; length--) join(levels, length);
  const lengths = [...levels.keys()].sort((a, b) => a - b);
  return lengths.flatMap((length, above) => {
    const wider = lengths.slice(0, above);
    const contained = (node: PrefixNode): boolean =>
      wider.some((other) => levels.get(other)?.has(node >> BigInt(length - other)) === true);
    return [...(levels.get(length) ?? [])].flatMap(([node, prefix]) =>
      contained(node) ? [] : [prefix ?? nodePrefix(family, node)],
    );
  });
}

function join(levels: Levels, length: number): void {
  const level = levels.get(length);
  for (const node of level?.keys() ?? []) {
    if (level === undefined || (node & 1n) === 1n || !level.has(node ^ 1n)) continue;
    level.delete(node);
    level.delete(node ^ 1n);
    enter(levels, length - 1, node >> 1n, null);
  }
}
