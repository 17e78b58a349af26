/** What the admin API shows of grants and tokens, and how commands print it. */
import type { IpPrefix } from '../proto/address.ts';

export interface GrantView {
  readonly eids: readonly string[];
  readonly names: readonly string[];
  readonly groups: readonly string[];
}

export interface TokenView extends GrantView {
  readonly pools: readonly string[];
  readonly id: string;
  readonly state: string;
  readonly eids: readonly IpPrefix[];
  readonly uses: number;
  readonly used: number;
  readonly expiresAt: number;
}

/** `10.77.0.5/32, db, @web` */
export function tokenText({ pools, ...grant }: GrantView & Pick<TokenView, 'pools'>): string {
  const rest = grantText(grant);
  return [...pools.map((pool) => `one of ${pool}`), ...(rest === '' ? [] : [rest])].join(', ');
}

export function grantText({ eids, names, groups }: GrantView): string {
  return [...eids, ...names, ...groups.map((group) => `@${group}`)].join(', ');
}
