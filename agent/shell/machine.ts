/** What this machine is known by. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Machine } from '../core/incarnation.ts';

export function readMachine(root = '/'): Machine {
  return {
    machineId: read(join(root, 'etc/machine-id')),
    // The kernel shows it to root only; the agent's unit leaves a copy for the agent.
    productUuid: read(join(root, 'sys/class/dmi/id/product_uuid')) ?? read(join(root, 'run/stayput/product-uuid')),
  };
}

function read(path: string): string | null {
  try {
    const text = readFileSync(path, 'utf8').trim().toLowerCase();
    return /^[0-9a-f-]{32,36}$/.test(text) ? text : null;
  } catch {
    return null;
  }
}
