/** What systemd says of units; nothing on machines without it. */
import { execFile } from 'node:child_process';
import { findProgram } from './programs.ts';

export interface UnitState {
  readonly unit: string;
  /** `active`, `inactive`, `failed`, `activating`; `missing` when there is no such unit. */
  readonly state: string;
  /** `enabled`, `disabled`, `static`; empty for a missing one. */
  readonly enabled: string;
}

/** Null: this machine is not run by systemd. */
export function unitStates(units: readonly string[]): Promise<readonly UnitState[] | null> {
  const systemctl = findProgram('systemctl');
  if (systemctl === undefined) return Promise.resolve(null);
  const properties = '--property=Id,LoadState,ActiveState,UnitFileState';
  return new Promise((resolve) => {
    execFile(systemctl, ['show', properties, ...units], { timeout: TIMEOUT }, (error, stdout) => {
      resolve(error === null ? stdout.trim().split('\n\n').map(unitState) : null);
    });
  });
}

function unitState(text: string): UnitState {
  const values = new Map(text.split('\n').map((line) => line.split('=', 2) as [string, string]));
  const missing = values.get('LoadState') === 'not-found';
  return {
    unit: values.get('Id') ?? '',
    state: missing ? 'missing' : (values.get('ActiveState') ?? ''),
    enabled: values.get('UnitFileState') ?? '',
  };
}

/** Milliseconds. */
const TIMEOUT = 3_000;
