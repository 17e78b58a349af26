/**
 * May this start of the agent use the identity on its disk? Disks are copied: into images, from backups, by cloning.
 *
 * Each start counts one run more, before anybody hears of it. The map server lets the newest run on and refuses the
 * others; who was refused is fenced, and stays so over restarts (a restart would make it the newest), until somebody
 * says which of the two is meant. The machine that joined is remembered too: on another one the identity is not used,
 * so that a copy does not even begin to speak. What cannot be read of a machine is not compared.
 */

/** What tells machines apart; null: not known. */
export interface Machine {
  /** /etc/machine-id. */
  readonly machineId: string | null;
  /** DMI product UUID, given by the hypervisor. */
  readonly productUuid: string | null;
}

export interface SavedIncarnation {
  readonly run: number;
  readonly machine: Machine;
  /** The newest run of another agent with this identity, when the map server refused this one for it. */
  readonly fencedBy: number | null;
}

export type Fence =
  | { readonly kind: 'copy'; readonly run: number; readonly newestRun: number }
  | { readonly kind: 'machine'; readonly changed: readonly string[] };

export type MachineChangePolicy = 'refuse' | 'accept';

export const NEVER_RUN: SavedIncarnation = {
  run: 0,
  machine: { machineId: null, productUuid: null },
  fencedBy: null,
};

/** `next` is to be on disk before the identity is used; with a fence nothing changes. */
export function begin(
  saved: SavedIncarnation,
  machine: Machine,
  policy: MachineChangePolicy,
): { readonly next: SavedIncarnation; readonly fence: Fence | null } {
  const changed = policy === 'accept' ? [] : changes(saved.machine, machine);
  if (changed.length > 0) return { next: saved, fence: { kind: 'machine', changed } };
  if (saved.fencedBy !== null) {
    return { next: saved, fence: { kind: 'copy', run: saved.run, newestRun: saved.fencedBy } };
  }
  return { next: { ...saved, run: saved.run + 1, machine: merged(saved.machine, machine) }, fence: null };
}

/** This machine is the one that keeps the identity: its next run will be newer than any that is known. */
export function keep(saved: SavedIncarnation, machine: Machine): SavedIncarnation {
  return {
    run: Math.max(saved.run, saved.fencedBy ?? 0),
    machine: merged(saved.machine, machine),
    fencedBy: null,
  };
}

/** What is wrong, and what to do, in a line. */
export function describeFence(fence: Fence): string {
  const why =
    fence.kind === 'machine'
      ? `this is not the machine that joined (another ${fence.changed.join(' and ')})`
      : `another agent with this identity is the newer one (run ${fence.newestRun}, here ${fence.run})`;
  return `${why}; nothing is registered and nothing forwarded here. On a copy: "stayput agent reset-identity --token TOKEN". If this machine is to keep the identity: "stayput agent reset-identity --keep". Then restart the agent`;
}

function changes(before: Machine, now: Machine): string[] {
  const differs = (a: string | null, b: string | null): boolean => a !== null && b !== null && a !== b;
  return [
    ...(differs(before.machineId, now.machineId) ? ['machine-id'] : []),
    ...(differs(before.productUuid, now.productUuid) ? ['product UUID'] : []),
  ];
}

function merged(before: Machine, now: Machine): Machine {
  return {
    machineId: now.machineId ?? before.machineId,
    productUuid: now.productUuid ?? before.productUuid,
  };
}
