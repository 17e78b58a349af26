/** Finds the platform and asks it: once, within a few seconds, whatever it does. */
import { execFile } from 'node:child_process';
import { findProgram } from '../../runtime/programs.ts';
import { type Detected, detectPlatform } from './detection.ts';
import { DRIVERS } from './drivers.ts';
import { type LocalFacts, readLocalFacts } from './local-facts.ts';
import { METADATA_LIMITS, MetadataClient } from './metadata-client.ts';
import { type ServiceHost, serviceHosts } from './metadata-service.ts';
import { type PlatformAccess, PlatformError, type PlatformEvent, type PlatformFacts } from './platform.ts';

export interface Examination {
  readonly detected: Detected;
  readonly detectionMs: number;
  /** What the platform said; null when it could not be asked. */
  readonly facts: PlatformFacts | null;
  readonly events: readonly PlatformEvent[];
  readonly problem: PlatformError | null;
}

/** `wanted`: `auto` or the name of a driver. `givenUp`: questions under way end at once. @throws UsageError for another name */
export async function examinePlatform(
  wanted: string,
  givenUp?: AbortSignal,
  access: AccessTo = realAccess,
): Promise<Examination> {
  const begin = performance.now();
  const { facts: local, open } = access();
  const detected = detectPlatform(local, DRIVERS, wanted);
  const detectionMs = performance.now() - begin;
  const { driver } = detected.chosen;
  const [read, announced] = await Promise.all([
    attempt(open, givenUp, (opened) => driver.read(opened)),
    attempt(open, givenUp, async (opened) => (await driver.events?.(opened)) ?? []),
  ]);
  return {
    detected,
    detectionMs,
    facts: read.value,
    events: announced.value ?? [],
    problem: read.problem ?? announced.problem,
  };
}

export interface OpenedAccess {
  readonly access: PlatformAccess;
  close(): void;
}

/** The local facts, and access for one reading each. */
export type AccessTo = () => { readonly facts: LocalFacts; readonly open: () => OpenedAccess };

export function realAccess(): ReturnType<AccessTo> {
  const root = '/';
  const facts = readLocalFacts(root);
  return { facts, open: () => openAccess(root, facts, (address, port) => serviceHosts(root, address, port)) };
}

/** `resolve` says where the service at an address is reached. It throws a PlatformError for one that may not be asked. */
export function openAccess(
  root: string,
  facts: LocalFacts,
  resolve: (address: string, port: number) => readonly ServiceHost[],
  limits = METADATA_LIMITS,
): OpenedAccess {
  const clients = new Map<string, MetadataClient>();
  const access: PlatformAccess = {
    root,
    facts,
    metadata(address, port = 80) {
      const key = `${address} ${port}`;
      const known = clients.get(key);
      if (known !== undefined) return known;
      const client = new MetadataClient(resolveAny([address].flat(), port, resolve), limits);
      clients.set(key, client);
      return client;
    },
    run,
  };
  return {
    access,
    close() {
      for (const client of clients.values()) client.close();
    },
  };
}

/** Of several addresses of one service, those that may be asked. */
function resolveAny(
  addresses: readonly string[],
  port: number,
  resolve: (address: string, port: number) => readonly ServiceHost[],
): readonly ServiceHost[] {
  const found: ServiceHost[] = [];
  let problem: PlatformError | undefined;
  for (const address of addresses) {
    try {
      found.push(...resolve(address, port));
    } catch (error) {
      if (!(error instanceof PlatformError)) throw error;
      problem ??= error;
    }
  }
  if (found.length === 0 && problem !== undefined) throw problem;
  return found;
}

async function attempt<T>(
  open: () => OpenedAccess,
  givenUp: AbortSignal | undefined,
  act: (access: PlatformAccess) => Promise<T>,
): Promise<{ readonly value: T | null; readonly problem: PlatformError | null }> {
  const { access, close } = open();
  givenUp?.addEventListener('abort', close, { once: true });
  try {
    return { value: await act(access), problem: null };
  } catch (error) {
    if (!(error instanceof PlatformError)) throw error;
    return { value: null, problem: error };
  } finally {
    givenUp?.removeEventListener('abort', close);
    close();
  }
}

function run(program: string, args: readonly string[]): Promise<string | null> {
  const path = findProgram(program);
  if (path === undefined) return Promise.resolve(null);
  return new Promise((resolve, reject) => {
    execFile(path, args, { timeout: RUN_MS, maxBuffer: MAX_OUTPUT }, (error, stdout) => {
      if (error === null) resolve(stdout);
      else if (typeof error.code === 'number') resolve(null);
      else if (error.killed === true) reject(new PlatformError('timeout', `${program}: took too long`));
      else reject(new PlatformError('unreadable', `${program}: ${error.message.split('\n', 1)[0]}`, { cause: error }));
    });
  });
}

const RUN_MS = 2000;
const MAX_OUTPUT = 1 << 20;
