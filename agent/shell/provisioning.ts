/**
 * Joining without anybody there, from what an operator left for this host: in a file, or with the platform below.
 *
 * The file counts before the platform. A file with a token is all there is to know, and the platform is not asked; one
 * without, as an image may have it, is completed by what the platform says. Both are believed for one thing only, the
 * first join of a host without an identity: a host that has one does not look. The token carries the fingerprint of the
 * overlay's authority, so a map server that a stranger names gets nothing.
 *
 * What is away comes back, so it is asked again with growing pauses; what is refused stays refused and ends the try.
 */
import { readFileSync, statSync } from 'node:fs';
import { z } from 'zod';
import { StayputError, UsageError } from '../../proto/errors.ts';
import type { Millis } from '../../proto/time.ts';
import { Backoff } from '../../runtime/backoff.ts';
import { parseConfig } from '../../runtime/config-file.ts';
import { ApiError } from '../../runtime/http-api.ts';
import type { Examination } from '../platform/examination.ts';
import { PlatformError } from '../platform/platform.ts';
import { EnrolmentError, type JoinRequest, type JoinResult, join } from './enrolment.ts';
import type { StateFolder } from './identity.ts';

export interface ProvisioningSources {
  /** It may be absent when the platform is asked as well. */
  readonly file: string | undefined;
  /** `auto`, or the name of a platform; undefined: it is not asked. */
  readonly platform: string | undefined;
}

export interface ProvisionedJoin {
  readonly sources: ProvisioningSources;
  /** How long what is away is asked again; 0: it is asked once. */
  readonly patience: Millis;
  readonly software: string;
  /** Called when all is read that only root may read, before the map server is asked. */
  readonly onRead: () => void;
  /** What an operator may want to know, a line each; never a token. */
  readonly say: (line: string) => void;
}

export type ProvisionedResult =
  | JoinResult
  /** Nobody left anything for this host. */
  | { readonly kind: 'nothing' };

export interface ProvisioningTools {
  readonly examine: (wanted: string) => Promise<Examination>;
  readonly now: () => Millis;
  readonly sleep: (ms: Millis) => Promise<void>;
  readonly random: () => number;
}

/** @throws UsageError, PlatformError, EnrolmentError, ApiError when it cannot be, or could not for as long as `patience` */
export async function joinProvisioned(
  folder: StateFolder,
  { sources, patience, software, onRead, say }: ProvisionedJoin,
  tools: ProvisioningTools = REAL,
): Promise<ProvisionedResult> {
  const identity = folder.identity();
  if (identity !== undefined) return { kind: 'already', identity };
  const until = tools.now() + patience;
  const persist = <T>(act: () => Promise<T>): Promise<T> => persistently(act, until, say, tools);
  const found = await persist(() => readProvisioning(sources, say, tools.examine));
  if (found === undefined) return { kind: 'nothing' };
  onRead();
  const { from, ...request } = found;
  const wishes = [...request.eids, ...request.names];
  say(`joining ${request.url} as ${from} says${wishes.length === 0 ? '' : `, with ${wishes.join(', ')}`}`);
  return persist(() => join(folder, { ...request, force: false, software }));
}

type Found = Pick<JoinRequest, 'url' | 'token' | 'eids' | 'names'> & { readonly from: string };

/** Undefined when there is nothing. @throws UsageError, PlatformError */
async function readProvisioning(
  { file, platform }: ProvisioningSources,
  say: (line: string) => void,
  examine: ProvisioningTools['examine'],
): Promise<Found | undefined> {
  const left = file === undefined ? undefined : readJoinFile(file, platform === undefined, say);
  if (platform === undefined || left?.token !== undefined) return left && complete(left, file ?? '');
  const { facts, problem, detected } = await examine(platform);
  const { title } = detected.chosen.driver;
  if (facts === null) throw problem ?? new PlatformError('unreadable', `${title} says nothing`);
  for (const what of facts.refused) say(`${title}: not believed: ${what}`);
  const { 'map-server': mapServer, token, eid, name } = facts.provisioning;
  const said = { mapServer, token, eids: list(eid), names: list(name) };
  if (left === undefined && Object.keys(facts.provisioning).length === 0) return undefined;
  const from = left === undefined ? title : `${file}, completed by ${title},`;
  return complete(
    {
      mapServer: left?.mapServer ?? said.mapServer,
      token: said.token,
      eids: left?.eids ?? said.eids,
      names: left?.names ?? said.names,
    },
    from,
  );
}

/** @throws UsageError */
function complete({ mapServer, token, eids, names }: z.output<typeof JOIN_FILE>, from: string): Found {
  if (mapServer === undefined) throw new UsageError(`${from}: no map server is named`);
  if (token === undefined) throw new UsageError(`${from}: there is no join token`);
  return { from, url: mapServer, token, eids: eids ?? [], names: names ?? [] };
}

/** @throws UsageError */
function readJoinFile(
  path: string,
  required: boolean,
  say: (line: string) => void,
): z.output<typeof JOIN_FILE> | undefined {
  let text: string;
  try {
    if ((statSync(path).mode & OTHERS) !== 0)
      say(`${path}: others on this host can read the token: chmod 0600 ${path}`);
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if (!required && (cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new UsageError(`${path}: cannot be read (${(cause as Error).message})`, { cause });
  }
  try {
    JSON.parse(text);
  } catch {
    // The parser's own message would quote the token.
    throw new UsageError(`${path}: not valid JSON`);
  }
  return parseConfig(JOIN_FILE, path, text);
}

/** Where a tag takes one word: several are separated by commas. */
function list(text: string | undefined): string[] | undefined {
  return text?.split(',').filter((word) => word !== '');
}

async function persistently<T>(
  act: () => Promise<T>,
  until: Millis,
  say: (line: string) => void,
  { now, sleep, random }: ProvisioningTools,
): Promise<T> {
  const backoff = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS, random);
  let [told, quietMs, saidAt] = ['', 0, 0];
  for (;;) {
    try {
      return await act();
    } catch (error) {
      const pause = backoff.next();
      if (!(error instanceof StayputError) || !mayPass(error) || now() + pause > until) throw error;
      // The same for a day is said less and less; it is tried no less for that.
      if (error.message !== told || now() - saidAt >= quietMs) {
        quietMs = error.message === told ? Math.min(2 * quietMs, LONGEST_QUIET_MS) : FIRST_QUIET_MS;
        [told, saidAt] = [error.message, now()];
        say(`${error.message}; trying again in ${(pause / 1000).toFixed(1)} s`);
      }
      await sleep(pause);
    }
  }
}

/** The service, the map server or the network may not be up yet, or the clock not be set. */
function mayPass(error: StayputError): boolean {
  if (error instanceof PlatformError) return true;
  if (error instanceof EnrolmentError) return PASSING.has(error.code);
  return error instanceof ApiError && (error.status === 429 || error.status >= 500);
}

const PASSING: ReadonlySet<string> = new Set(['STAYPUT_UNREACHABLE', 'STAYPUT_TIMEOUT', 'STAYPUT_CLOCK']);
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;
const FIRST_QUIET_MS = 60_000;
const LONGEST_QUIET_MS = 3_600_000;
const OTHERS = 0o077;

/** Empty is as absent: templates leave such. */
const given = <T extends { readonly length: number }>(value: T | undefined): T | undefined =>
  value === undefined || value.length === 0 ? undefined : value;
const word = z.string().min(1).max(512);
const JOIN_FILE = z.strictObject({
  /** https://HOST[:PORT] */
  mapServer: z.string().max(512).optional().transform(given),
  token: z.string().max(2048).optional().transform(given),
  eids: z.array(word).max(64).optional().transform(given),
  names: z.array(word).max(64).optional().transform(given),
});

const REAL: ProvisioningTools = {
  examine: async (wanted) => {
    const { examinePlatform } = await import('../platform/examination.ts');
    return await examinePlatform(wanted);
  },
  now: () => performance.now(),
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  random: Math.random,
};
