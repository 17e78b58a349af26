/**
 * CRIU's action script (criu.org/Action_scripts): called with the action in CRTOOLS_SCRIPT_ACTION. CRIU makes the
 * container's cable anew where it restores it, with the host's end down; the script opens that itself at
 * `network-unlock`, since every millisecond counts there, and the EID is live on the new host with it. After the dump the
 * cable is gone from the old host, so the data plane there holds what comes for the EID.
 */
import type { WorkloadEvent } from './workload.ts';

export function criuEvent(action: string): WorkloadEvent['what'] | null {
  return ACTIONS[action] ?? null;
}

const ACTIONS: Readonly<Record<string, WorkloadEvent['what']>> = {
  'post-dump': 'gone',
  'pre-restore': 'here',
};
