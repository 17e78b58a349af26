/**
 * Longest-prefix match over IP prefixes: one path-compressed binary trie per address family.
 *
 * A node stands for a prefix. It has a value, or it is a fork with two children; nothing else survives a deletion, so
 * a trie of n prefixes has fewer than 2n nodes and a look-up visits at most one per bit. Iteration is in address
 * order, a prefix before what it covers.
 */
import {
  hostPrefix,
  type IpAddress,
  type IpFamily,
  type IpPrefix,
  ipFamily,
  ipToBytes,
  prefixAddress,
  prefixLength,
} from './address.ts';
import { viewOf } from './bytes.ts';

export class PrefixTrie<V> {
  readonly #roots: Record<IpFamily, Node<V> | undefined> = { 4: undefined, 6: undefined };
  #size = 0;

  get size(): number {
    return this.#size;
  }

  set(prefix: IpPrefix, value: V): void {
    const key = keyOf(prefix);
    const entry: Entry<V> = { prefix, value };
    let place = this.#rootPlace(key.family);
    for (;;) {
      const node = place.node();
      if (node === undefined) {
        place.put({ words: key.words, length: key.length, entry, zero: undefined, one: undefined });
        this.#size++;
        return;
      }
      const common = commonLength(node, key);
      if (common < node.length) {
        const fork: Node<V> = { words: key.words, length: common, entry: undefined, zero: undefined, one: undefined };
        setChild(fork, bitAt(node.words, common), node);
        place.put(fork);
        if (common === key.length) {
          fork.entry = entry;
          this.#size++;
          return;
        }
        place = childPlace(fork, bitAt(key.words, common));
      } else if (node.length === key.length) {
        if (node.entry === undefined) this.#size++;
        node.entry = entry;
        return;
      } else {
        place = childPlace(node, bitAt(key.words, node.length));
      }
    }
  }

  get(prefix: IpPrefix): V | undefined {
    return this.#find(keyOf(prefix))?.entry?.value;
  }

  has(prefix: IpPrefix): boolean {
    return this.#find(keyOf(prefix))?.entry !== undefined;
  }

  /** @returns false when there was nothing to delete */
  delete(prefix: IpPrefix): boolean {
    const key = keyOf(prefix);
    let above: Place<V> | undefined;
    let place = this.#rootPlace(key.family);
    for (;;) {
      const node = place.node();
      if (node === undefined || node.length > key.length || commonLength(node, key) < node.length) return false;
      if (node.length === key.length) {
        if (node.entry === undefined) return false;
        node.entry = undefined;
        this.#size--;
        prune(place);
        if (above !== undefined) prune(above);
        return true;
      }
      above = place;
      place = childPlace(node, bitAt(key.words, node.length));
    }
  }

  clear(): void {
    this.#roots[4] = undefined;
    this.#roots[6] = undefined;
    this.#size = 0;
  }

  /** The most specific prefix that contains `target`. */
  longestMatch(target: IpAddress | IpPrefix): Entry<V> | undefined {
    const key = keyOf(target.includes('/') ? (target as IpPrefix) : hostPrefix(target as IpAddress));
    let best: Entry<V> | undefined;
    let node = this.#roots[key.family];
    while (node !== undefined && node.length <= key.length && commonLength(node, key) === node.length) {
      best = node.entry ?? best;
      if (node.length === key.length) break;
      node = childOf(node, bitAt(key.words, node.length));
    }
    return best;
  }

  /** Everything that contains `prefix`, and `prefix` itself, the least specific first. */
  covering(prefix: IpPrefix): Entry<V>[] {
    const key = keyOf(prefix);
    const found: Entry<V>[] = [];
    let node = this.#roots[key.family];
    while (node !== undefined && node.length <= key.length && commonLength(node, key) === node.length) {
      if (node.entry !== undefined) found.push(node.entry);
      if (node.length === key.length) break;
      node = childOf(node, bitAt(key.words, node.length));
    }
    return found;
  }

  /**
   * Length of the shortest prefix around `target` that holds no entry, other than one that equals it, and lies in all
   * entries that cover `target`. At most the length of `target`, whatever is inside it.
   */
  vacantLength(target: IpPrefix): number {
    const key = keyOf(target);
    let length = 0;
    let node = this.#roots[key.family];
    while (node !== undefined) {
      const common = commonLength(node, key);
      if (common < node.length) return Math.min(common + 1, key.length);
      if (node.entry !== undefined) length = node.length;
      if (node.length === key.length) return key.length;
      const side = bitAt(key.words, node.length);
      if (childOf(node, side === 0 ? 1 : 0) !== undefined) length = node.length + 1;
      node = childOf(node, side);
    }
    return length;
  }

  /** `prefix` and everything more specific. The trie must not change meanwhile. */
  *covered(prefix: IpPrefix): IterableIterator<Entry<V>> {
    const key = keyOf(prefix);
    let node = this.#roots[key.family];
    while (node !== undefined && node.length < key.length) {
      if (commonLength(node, key) < node.length) return;
      node = childOf(node, bitAt(key.words, node.length));
    }
    if (node !== undefined && commonLength(node, key) === key.length) yield* walk(node);
  }

  *[Symbol.iterator](): IterableIterator<Entry<V>> {
    yield* walk(this.#roots[4]);
    yield* walk(this.#roots[6]);
  }

  #find(key: Key): Node<V> | undefined {
    let node = this.#roots[key.family];
    while (node !== undefined && node.length < key.length) node = childOf(node, bitAt(key.words, node.length));
    return node !== undefined && node.length === key.length && commonLength(node, key) === key.length
      ? node
      : undefined;
  }

  #rootPlace(family: IpFamily): Place<V> {
    return {
      node: () => this.#roots[family],
      put: (node) => {
        this.#roots[family] = node;
      },
    };
  }
}

export interface Entry<V> {
  readonly prefix: IpPrefix;
  readonly value: V;
}

interface Node<V> {
  readonly words: Words;
  readonly length: number;
  entry: Entry<V> | undefined;
  zero: Node<V> | undefined;
  one: Node<V> | undefined;
}

/** Where a node hangs, so that it can be replaced. */
interface Place<V> {
  node(): Node<V> | undefined;
  put(node: Node<V> | undefined): void;
}

interface Key {
  readonly family: IpFamily;
  readonly words: Words;
  readonly length: number;
}

/** Bits of an address, 32 in each, as signed numbers: a quarter of what the octets in a Uint8Array take. */
type Words = readonly number[];

function childOf<V>(node: Node<V>, side: 0 | 1): Node<V> | undefined {
  return side === 0 ? node.zero : node.one;
}

function setChild<V>(node: Node<V>, side: 0 | 1, child: Node<V> | undefined): void {
  if (side === 0) node.zero = child;
  else node.one = child;
}

function childPlace<V>(parent: Node<V>, side: 0 | 1): Place<V> {
  return {
    node: () => childOf(parent, side),
    put: (node) => setChild(parent, side, node),
  };
}

function prune<V>(place: Place<V>): void {
  const node = place.node();
  if (node === undefined || node.entry !== undefined) return;
  const { zero, one } = node;
  if (zero === undefined || one === undefined) place.put(zero ?? one);
}

function* walk<V>(root: Node<V> | undefined): IterableIterator<Entry<V>> {
  const pending = root === undefined ? [] : [root];
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (node.entry !== undefined) yield node.entry;
    const { zero, one } = node;
    if (one !== undefined) pending.push(one);
    if (zero !== undefined) pending.push(zero);
  }
}

function keyOf(prefix: IpPrefix): Key {
  const address = prefixAddress(prefix);
  return { family: ipFamily(address), words: wordsOf(ipToBytes(address)), length: prefixLength(prefix) };
}

function wordsOf(bytes: Uint8Array): Words {
  const view = viewOf(bytes);
  if (bytes.length === 4) return [view.getInt32(0)];
  return [view.getInt32(0), view.getInt32(4), view.getInt32(8), view.getInt32(12)];
}

/** Leading bits in common, at most the shorter length. */
function commonLength(a: { words: Words; length: number }, b: { words: Words; length: number }): number {
  const limit = Math.min(a.length, b.length);
  for (let i = 0; i * 32 < limit; i++) {
    const difference = (a.words[i] ?? 0) ^ (b.words[i] ?? 0);
    if (difference !== 0) return Math.min(limit, i * 32 + Math.clz32(difference));
  }
  return limit;
}

function bitAt(words: Words, index: number): 0 | 1 {
  return (((words[index >> 5] ?? 0) >>> (31 - (index & 31))) & 1) as 0 | 1;
}
