/**
 * What is set at names of the zone: judged in a transaction, all of it or nothing.
 *
 * Rules across names: nothing is set at or below a delegated name but its delegation, and the target of SRV and NS is
 * not a CNAME of ours (RFC 2181 section 10.3, RFC 2782).
 */
import { isBare, NO_RECORDS, problemOf, type RecordSets, serviceTargets } from '../../proto/dns/record-sets.ts';
import { APEX, nameEid } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { WallClock } from '../../proto/time.ts';
import type { Overlay } from './grants.ts';
import { parentOf } from './names.ts';
import { OperationError } from './operation-error.ts';
import { type NameRecord, nameKey } from './records.ts';
import type { Transaction } from './transactions.ts';

export interface NameChange {
  /** Relative to the zone, lower case, a wildcard, or APEX: `db`, `*.web`, `@`. */
  readonly name: string;
  /** Everything that is to be set at it. Null: nothing any more. */
  readonly records: RecordSets | null;
  /** The version that the author has seen, 0 for none; null: whatever there is. */
  readonly ifVersion: number | null;
}

export interface NamesChange {
  readonly kind: 'change-names';
  readonly changes: readonly NameChange[];
  /** Names that were looked at and are not changed: their versions have to be the same still. */
  readonly unchanged?: readonly SeenName[];
}

export interface SeenName {
  readonly name: string;
  /** 0: nothing is set at it. */
  readonly version: number;
}

/** What became of the names, in their order. */
export interface ChangedNames {
  readonly kind: 'names';
  readonly names: readonly SeenName[];
}

export interface NamesContext {
  readonly overlay: Overlay;
  readonly wallClock: WallClock;
  readonly counts: { readonly names: number };
  readonly limits: { readonly names: number };
  /** By an agent. */
  readonly isRegistered: (name: string) => boolean;
  /** Names at which SRV or NS with this target are set. */
  readonly pointingAt: (target: string) => Iterable<string>;
}

/** @throws OperationError, and then nothing is changed */
export function changeNames(
  transaction: Transaction,
  { changes, unchanged = [] }: NamesChange,
  context: NamesContext,
): ChangedNames {
  const { overlay, counts, limits } = context;
  const stored = (name: string): NameRecord | undefined => {
    const record = transaction.get(nameKey(overlay.instance, name));
    return record?.kind === 'name' ? record : undefined;
  };
  const planned = new Map<string, NameRecord | undefined>();
  const recordAt: RecordAt = (name) => (planned.has(name) ? planned.get(name) : stored(name));
  for (const { name, version } of unchanged) demandVersion(name, stored(name), version);
  let total = counts.names;
  for (const { name, records, ifVersion } of changes) {
    const current = recordAt(name);
    if (ifVersion !== null) demandVersion(name, current, ifVersion);
    const isRemoval = records === null || isBare(records);
    if (isRemoval && current === undefined)
      throw new OperationError('STAYPUT_NAME_UNKNOWN', `nothing is set at "${name}"`);
    total += Number(!isRemoval) - Number(current !== undefined);
    // From the clock on, so that a name that is set again has no version that it had before.
    const next = Math.max((current?.version ?? 0) + 1, context.wallClock);
    planned.set(name, isRemoval ? undefined : { kind: 'name', iid: overlay.instance, name, version: next, records });
  }
  if (total > limits.names && total > counts.names)
    throw new OperationError('STAYPUT_TOO_MANY', `there may be records at ${limits.names} names at most`);
  for (const record of planned.values()) if (record !== undefined) demandSound(record, recordAt, context);
  for (const [name, record] of planned) {
    if (record === undefined) transaction.delete(nameKey(overlay.instance, name));
    else transaction.put(record);
  }
  return { kind: 'names', names: [...planned].map(([name, record]) => ({ name, version: record?.version ?? 0 })) };
}

type RecordAt = (name: string) => NameRecord | undefined;

function demandVersion(name: string, record: NameRecord | undefined, seen: number): void {
  const version = record?.version ?? 0;
  if (version !== seen)
    throw new OperationError('STAYPUT_NAME_CHANGED', `"${name}" is at version ${version}, not ${seen}`);
}

function demandSound({ name, records }: NameRecord, recordAt: RecordAt, context: NamesContext): void {
  const problem = nameProblem(context.overlay, name) ?? apexProblem(name, records) ?? problemOf(name, records);
  if (problem !== null) throw refused(name, problem);
  for (let above = parentOf(name); above !== ''; above = parentOf(above)) {
    if ((recordAt(above)?.records.ns.length ?? 0) > 0)
      throw refused(name, `"${above}" is delegated, so its servers answer for what is below it`);
  }
  if ((records.cname !== null || records.ns.length > 0) && context.isRegistered(name))
    throw refused(name, 'agents have registered it, and a CNAME or a delegation must be alone at its name');
  for (const target of serviceTargets(records)) {
    if (recordAt(target)?.records.cname != null) throw refused(name, `its target "${target}" is a CNAME`);
  }
  if (records.cname === null) return;
  for (const other of context.pointingAt(name)) {
    if (serviceTargets(recordAt(other)?.records ?? NO_RECORDS).includes(name))
      throw refused(name, `"${other}" names it as the target of SRV or NS, which must not be a CNAME`);
  }
}

function apexProblem(name: string, { cname, ns }: RecordSets): string | null {
  if (name !== APEX || (cname === null && ns.length === 0)) return null;
  return 'the zone itself can be no alias, and its name servers are in the configuration (zone.nameServers)';
}

/** A wildcard is a name behind `*.`, or all of the zone. */
function nameProblem({ instance }: Overlay, name: string): string | null {
  const fixed = name.startsWith('*.') ? name.slice(2) : name;
  if (name === '*' || name === APEX) return null;
  try {
    return nameEid(instance, fixed).name === fixed ? null : 'names are in lower case';
  } catch (error) {
    if (error instanceof DecodeError) return error.message;
    throw error;
  }
}

function refused(name: string, problem: string): OperationError {
  return new OperationError('STAYPUT_NAME_RECORDS', `"${name}": ${problem}`);
}
