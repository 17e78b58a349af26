/** The collections that a core holds, whatever they are called: found by walking its fields. */
export interface Collection {
  readonly path: string;
  readonly size: number;
}

/** Largest first. */
export function largestCollections(root: object | null): readonly Collection[] {
  const seen = new Set<object>();
  const found: Collection[] = [];
  const open: { readonly value: unknown; readonly path: string }[] = [{ value: root, path: '' }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { value, path } = next;
    if (typeof value !== 'object' || value === null || seen.has(value) || ArrayBuffer.isView(value)) continue;
    seen.add(value);
    const items = itemsOf(value);
    if (items !== null) {
      found.push({ path, size: items.length });
      // What one of them holds, the others hold as well.
      for (const item of items.slice(0, SAMPLE)) open.push({ value: item, path: `${path}[]` });
      continue;
    }
    for (const [key, field] of Object.entries(value))
      open.push({ value: field, path: path === '' ? key : `${path}.${key}` });
  }
  return found.sort((a, b) => b.size - a.size);
}

function itemsOf(value: object): unknown[] | null {
  if (Array.isArray(value)) return value;
  if (value instanceof Map) return [...value.values()];
  return value instanceof Set ? [...value] : null;
}

const SAMPLE = 8;
