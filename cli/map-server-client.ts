/** Calls to the admin socket in a map server's data folder. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { UsageError } from '../proto/errors.ts';
import { ApiError, callApi } from '../runtime/http-api.ts';

/** Options that every command to a map server has. */
export interface ListOptions {
  /** Undefined: `dataDirOf` says. */
  readonly dataDir?: string;
  readonly json?: boolean;
}

export function dataDirOption(): Option {
  return new Option(
    '--data-dir <folder>',
    `data folder of the map server (default: dataDir of its configuration, or ${DEFAULT_DATA_DIR})`,
  ).env(DATA_DIR_ENV);
}

/** What was asked for, or what the configuration says; one that cannot be read says nothing. */
export function dataDirOf({ dataDir, config }: { readonly dataDir?: string; readonly config?: string }): string {
  if (dataDir !== undefined) return dataDir;
  try {
    const said = (JSON.parse(readFileSync(config ?? MAP_SERVER_CONFIG, 'utf8')) as { dataDir?: unknown } | null)
      ?.dataDir;
    return typeof said === 'string' && said !== '' ? said : DEFAULT_DATA_DIR;
  } catch {
    return DEFAULT_DATA_DIR;
  }
}

/** A command to a map server, with the options that all of them have. */
export function mapServerCommand(parent: Command, name: string, description: string): Command {
  return parent.command(name).description(description).addOption(dataDirOption()).option('--json', 'print JSON');
}

/** @throws StayputError in words for the person at the terminal */
export async function admin(
  options: ListOptions,
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  body?: unknown,
  timeoutMs?: number,
): Promise<unknown> {
  const dataDir = dataDirOf(options);
  try {
    return await callApi({ socketPath: join(dataDir, 'admin.sock') }, method, path, {
      ...(body === undefined ? {} : { body }),
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  } catch (error) {
    if (error instanceof ApiError && error.status === 400) throw new UsageError(error.message, { cause: error });
    if (!(error instanceof ApiError) || error.code !== 'STAYPUT_UNREACHABLE') throw error;
    const code = (error.cause as NodeJS.ErrnoException | undefined)?.code;
    const why = code === 'EACCES' ? 'you may not open its admin socket' : 'it is not running';
    throw new ApiError(0, error.code, `no answer from the map server of ${dataDir}: ${why} (see --data-dir)`, {
      cause: error,
    });
  }
}

/** An EID, or a name, as the admin API shows it. */
export interface EidView {
  readonly eid: string;
  readonly state: string;
  readonly generation: number;
  readonly owner: string;
  /** The owner is a site. */
  readonly site?: string;
  readonly locators?: readonly { readonly address: string; readonly port: number }[];
  readonly names?: readonly string[];
  readonly targets?: readonly string[];
}

export const DATA_DIR_ENV = 'STAYPUT_MAPSERVER_DATA';
export const MAP_SERVER_CONFIG = '/etc/stayput/mapserver.json';
const DEFAULT_DATA_DIR = '/var/lib/stayput/mapserver';
/** Digits of an xTR-ID in tables. */
export const SHORT_ID = 12;
