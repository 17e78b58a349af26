/**
 * A prefix as the number of its node in the binary tree of its family: a 1, followed by its bits.
 *
 * So the root is 1, the parent of `node` is `node >> 1n`, its sibling `node ^ 1n`, and the hosts are consecutive
 * numbers in address order.
 */
import {
  type IpFamily,
  type IpPrefix,
  ipFamily,
  ipFromBytes,
  ipToBytes,
  prefixAddress,
  prefixLength,
} from './address.ts';

export type PrefixNode = bigint;

export function prefixNode(prefix: IpPrefix): PrefixNode {
  const address = prefixAddress(prefix);
  const bits = BigInt(`0x1${Buffer.from(ipToBytes(address)).toString('hex')}`);
  return bits >> BigInt(WIDTH[ipFamily(address)] - prefixLength(prefix));
}

export function nodePrefix(family: IpFamily, node: PrefixNode): IpPrefix {
  const digits = firstHost(family, node).toString(16).slice(1);
  return `${ipFromBytes(Uint8Array.from(Buffer.from(digits, 'hex')))}/${lengthOf(node)}` as IpPrefix;
}

/** The first of its addresses. */
export function firstHost(family: IpFamily, node: PrefixNode): PrefixNode {
  return node << hostBits(family, node);
}

/** The last of its addresses. */
export function lastHost(family: IpFamily, node: PrefixNode): PrefixNode {
  return ((node + 1n) << hostBits(family, node)) - 1n;
}

function hostBits(family: IpFamily, node: PrefixNode): bigint {
  return BigInt(WIDTH[family] - lengthOf(node));
}

function lengthOf(node: PrefixNode): number {
  return node.toString(2).length - 1;
}

const WIDTH: Readonly<Record<IpFamily, number>> = { 4: 32, 6: 128 };
