/** Finds the platform and asks it: once, within a few seconds, whatever it does. */
import { execFile } from 'node:child_process';
import { findProgram } from '../../runtime/programs.ts';
import { type Detected, detectPlatform } from './detection.ts';
import { DRIVERS } from './drivers.ts';
import { type LocalFacts, readLocalFacts } from './local-facts.ts';
import { METADATA_LIMITS, MetadataClient, type MetadataLimits } from './metadata-client.ts';
import { type ServiceHost, serviceHosts } from './metadata-service.ts';
import { gateEvents } from './notices.ts';
import {
  likely,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformEvent,
  type PlatformFacts,
} from './platform.ts';

export interface Examination {
  readonly detected: Detected;
  readonly detectionMs: number;
  /** What the platform said; null when it could not be asked. */
  readonly facts: PlatformFacts | null;
  /** What it announces; null when it could not be asked for that. */
  readonly events: readonly PlatformEvent[] | null;
  readonly problem: PlatformError | null;
  /** For all of it, in milliseconds. */
  readonly totalMs: number;
  /** The service of the platform was heard where no name and no local fact had to be believed. */
  readonly recognised: boolean;
}

export interface ExaminationOptions {
  /** Questions under way end at once. */
  readonly givenUp?: AbortSignal | undefined;
  /** This machine may have been moved since its firmware tables were read: services are asked which platform it is on. */
  readonly moved?: boolean;
  readonly access?: AccessTo;
}

/** `wanted`: `auto` or the name of a driver. @throws UsageError for another name */
export async function examinePlatform(
  wanted: string,
  { givenUp, moved = false, access = realAccess }: ExaminationOptions = {},
): Promise<Examination> {
  const begin = performance.now();
  const { facts: local, open } = access();
  const byFacts = detectPlatform(local, DRIVERS, wanted);
  const detectionMs = performance.now() - begin;
  const heard = moved && wanted === 'auto' ? await servicesHere(open, givenUp) : [];
  const detected = preferHeard(byFacts, heard);
  const { driver } = detected.chosen;
  const [read, announced] = await Promise.all([
    attempt(open, givenUp, (opened) => driver.read(opened)),
    attempt(open, givenUp, async (opened) => (await driver.events?.(opened)) ?? []),
  ]);
  return {
    detected,
    detectionMs,
    facts: read.value,
    events: announced.value === null ? null : gateEvents(announced.value),
    problem: read.problem ?? announced.problem,
    totalMs: performance.now() - begin,
    recognised: heard.includes(driver),
  };
}

/** What the platform announces now. @throws PlatformError */
export async function askEvents(
  driver: PlatformDriver,
  givenUp: AbortSignal,
  access: AccessTo = realAccess,
): Promise<readonly PlatformEvent[]> {
  const { value, problem } = await attempt(
    access().open,
    givenUp,
    async (opened) => (await driver.events?.(opened)) ?? [],
  );
  if (problem !== null) throw problem;
  return gateEvents(value ?? []);
}

/** As `change` of the driver. @throws PlatformError */
export async function awaitChange(
  driver: PlatformDriver,
  mark: string | null,
  givenUp: AbortSignal,
  access: AccessTo = realAccess,
): Promise<string> {
  const { open } = access();
  const { value, problem } = await attempt(
    () => open(WAITING),
    givenUp,
    (opened) => driver.change?.(opened, mark) ?? Promise.resolve(mark),
  );
  if (problem !== null) throw problem;
  return value ?? '';
}

/** Those whose service answers, all asked at once. */
async function servicesHere(open: Open, givenUp: AbortSignal | undefined): Promise<readonly PlatformDriver[]> {
  const answers = await Promise.all(
    DRIVERS.map(async (driver) => {
      const { value } = await attempt(
        () => open(PROBING),
        givenUp,
        (opened) => driver.recognise?.(opened) ?? Promise.resolve(false),
      );
      return value === true ? [driver] : [];
    }),
  );
  return answers.flat();
}

function preferHeard(detected: Detected, heard: readonly PlatformDriver[]): Detected {
  const { chosen } = detected;
  const [first] = heard;
  if (first === undefined || heard.includes(chosen.driver)) return detected;
  const reason = `its service answers here, whatever the firmware said at the boot (${chosen.driver.name}: ${chosen.reason})`;
  return { ...detected, chosen: { driver: first, ...likely(reason) } };
}

export interface OpenedAccess {
  readonly access: PlatformAccess;
  close(): void;
}

export type Open = (limits?: MetadataLimits) => OpenedAccess;

/** The local facts, and access for one reading each. */
export type AccessTo = () => { readonly facts: LocalFacts; readonly open: Open };

export function realAccess(): ReturnType<AccessTo> {
  const root = '/';
  const facts = readLocalFacts(root);
  return {
    facts,
    open: (limits) => openAccess(root, facts, (address, port) => serviceHosts(root, address, port), limits),
  };
}

/** `resolve` says where the service at an address is reached. It throws a PlatformError for one that may not be asked. */
export function openAccess(
  root: string,
  facts: LocalFacts,
  resolve: (address: string, port: number) => readonly ServiceHost[],
  limits = METADATA_LIMITS,
): OpenedAccess {
  const givenUp = new AbortController();
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
    run: (program, args, patienceMs) => run(program, args, givenUp.signal, patienceMs),
  };
  return {
    access,
    close() {
      givenUp.abort();
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

function run(program: string, args: readonly string[], signal: AbortSignal, timeout = RUN_MS): Promise<string | null> {
  const path = findProgram(program);
  if (path === undefined) return Promise.resolve(null);
  return new Promise((resolve, reject) => {
    execFile(path, args, { timeout, signal, maxBuffer: MAX_OUTPUT }, (error, stdout) => {
      if (error === null) resolve(stdout);
      else if (typeof error.code === 'number') resolve(null);
      else if (error.killed === true) reject(new PlatformError('timeout', `${program}: took too long`));
      else reject(new PlatformError('unreadable', `${program}: ${error.message.split('\n', 1)[0]}`, { cause: error }));
    });
  });
}

/** For a question to each platform, of which at most one answers. */
const PROBING: MetadataLimits = { requestMs: 700, readingMs: 1000, maxOctets: 1 << 20 };
/** For a question whose answer is a change. */
const WAITING: MetadataLimits = { requestMs: 60_000, readingMs: 60_000, maxOctets: 1 << 20 };
const RUN_MS = 2000;
const MAX_OUTPUT = 1 << 20;
