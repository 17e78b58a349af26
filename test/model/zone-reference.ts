/**
 * What a zone answers, by the letter of RFC 1034 section 4.3.2 and RFC 4592, over a plain list of names: slow, short,
 * and with nothing of the product in it.
 */
export interface Content {
  readonly a: readonly string[];
  readonly aaaa: readonly string[];
  readonly txt: readonly string[];
  /** Targets as in a zone file: relative to the zone, or with a final dot. */
  readonly srv: readonly string[];
  readonly cname: string | null;
  readonly ns: readonly { readonly host: string; readonly addresses: readonly string[] }[];
}

export type Type = 'A' | 'AAAA' | 'TXT' | 'SRV' | 'CNAME' | 'MX';

export interface Outcome {
  readonly end: 'data' | 'no-data' | 'nx-domain' | 'delegated' | 'outside' | 'too-long';
  /** `OWNER TYPE DATA`, the aliases that were followed included; names as in `Content`. */
  readonly answers: readonly string[];
  /** The name at which it ends; one outside has a final dot. */
  readonly at: string;
  /** Of the name servers that are asked on there. */
  readonly servers: readonly string[];
}

/** Names are relative to the zone, and at most this many aliases are followed. */
export function outcome(zone: ReadonlyMap<string, Content>, name: string, type: Type, aliases = 8): Outcome {
  const cut = ancestors(name).findLast((each) => (zone.get(each)?.ns.length ?? 0) > 0);
  if (cut !== undefined) {
    const servers = zone.get(cut)?.ns.flatMap(({ addresses }) => addresses) ?? [];
    return { end: 'delegated', answers: [], at: name, servers };
  }
  const content =
    zone.get(name) ?? (exists(zone, name) ? NOTHING : zone.get(`*.${encloser(zone, name)}`.replace(/\.$/, '')));
  if (content === undefined) return { end: 'nx-domain', answers: [], at: name, servers: [] };
  if (content.cname !== null && type !== 'CNAME') {
    const alias = `${name} CNAME ${content.cname}`;
    if (content.cname.endsWith('.')) return { end: 'outside', answers: [alias], at: content.cname, servers: [] };
    if (aliases === 0) return { end: 'too-long', answers: [], at: name, servers: [] };
    const further = outcome(zone, content.cname, type, aliases - 1);
    return { ...further, answers: [alias, ...further.answers] };
  }
  const data = {
    A: content.a,
    AAAA: content.aaaa,
    TXT: content.txt,
    SRV: content.srv,
    CNAME: content.cname === null ? [] : [content.cname],
    MX: [],
  }[type];
  const answers = data.map((each) => `${name} ${type} ${each}`);
  return { end: data.length > 0 ? 'data' : 'no-data', answers, at: name, servers: [] };
}

/** It has records, or is above a name that has. */
function exists(zone: ReadonlyMap<string, Content>, name: string): boolean {
  return [...zone.keys()].some((each) => each === name || each.endsWith(`.${name}`));
}

/** The closest encloser; empty: the zone itself. */
function encloser(zone: ReadonlyMap<string, Content>, name: string): string {
  return (
    ancestors(name)
      .slice(1)
      .find((each) => exists(zone, each)) ?? ''
  );
}

/** The name and all above it, the zone excluded. */
function ancestors(name: string): string[] {
  const labels = name.split('.');
  return labels.map((_, i) => labels.slice(i).join('.'));
}

const NOTHING: Content = { a: [], aaaa: [], txt: [], srv: [], cname: null, ns: [] };
