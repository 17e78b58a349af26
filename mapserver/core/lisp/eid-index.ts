/** What is kept of EID prefixes, several things of each, to be found by the EIDs around and inside. */
import type { InstanceId, PrefixEid } from '../../../proto/eid.ts';
import { PrefixTrie } from '../../../proto/prefix-trie.ts';

export class EidIndex<K, V> {
  private readonly tries = new Map<InstanceId, PrefixTrie<Map<K, V>>>();

  get({ iid, prefix }: PrefixEid, key: K): V | undefined {
    return this.tries.get(iid)?.get(prefix)?.get(key);
  }

  set({ iid, prefix }: PrefixEid, key: K, value: V): void {
    const trie = this.tries.get(iid) ?? new PrefixTrie<Map<K, V>>();
    this.tries.set(iid, trie);
    const values = trie.get(prefix) ?? new Map<K, V>();
    trie.set(prefix, values.set(key, value));
  }

  delete({ iid, prefix }: PrefixEid, key: K): void {
    const trie = this.tries.get(iid);
    const values = trie?.get(prefix);
    values?.delete(key);
    if (values?.size === 0) trie?.delete(prefix);
    if (trie?.size === 0) this.tries.delete(iid);
  }

  /** Of the prefixes that cover this one, of itself, and of those inside. */
  overlapping({ iid, prefix }: PrefixEid): V[] {
    const trie = this.tries.get(iid);
    if (trie === undefined) return [];
    const around = trie.covering(prefix).filter((entry) => entry.prefix !== prefix);
    return [...around, ...trie.covered(prefix)].flatMap(({ value }) => [...value.values()]);
  }
}
