/** `stayput mapserver doctor`: what is wrong with a map server, from its data folder and from outside. */
import { X509Certificate } from 'node:crypto';
import { accessSync, constants, existsSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { type Finding, fail, type Outcome, ok, skipped, warn } from '../../runtime/finding.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import { callApi } from '../../runtime/http-api.ts';
import { VERSION } from '../../runtime/project-root.ts';
import { unitStates } from '../../runtime/systemd.ts';
import type { MapServerSettings } from '../config.ts';
import { checkDatabase } from '../store/sqlite-copy.ts';
import { type OverlayFiles, readOverlay } from './overlay-files.ts';

type Check = (settings: MapServerSettings) => readonly Outcome[] | Promise<readonly Outcome[]>;

/** In the order in which they are shown. */
const CHECKS: Readonly<Record<string, Check>> = {
  data: checkData,
  disk: checkDisk,
  store: checkStore,
  certificates: checkCertificates,
  unit: checkUnit,
  running: checkRunning,
  reachable: checkReachable,
};

export async function examineMapServer(settings: MapServerSettings): Promise<readonly Finding[]> {
  const results = await Promise.all(
    Object.entries(CHECKS).map(async ([check, look]) => {
      try {
        return (await look(settings)).map((outcome): Finding => ({ check, ...outcome }));
      } catch (error) {
        return [{ check, ...skipped(`it could not be looked at (${(error as Error).message.split('\n', 1)[0]})`) }];
      }
    }),
  );
  return results.flat();
}

function checkData({ dataDir }: MapServerSettings): readonly Outcome[] {
  try {
    if (existsSync(dataDir)) accessSync(dataDir, constants.R_OK | constants.X_OK);
  } catch {
    return [skipped(`${dataDir} may not be read by this user: sudo stayput mapserver doctor`)];
  }
  if (!existsSync(join(dataDir, 'overlay.json'))) {
    const advice = 'stayput mapserver init, or stayput mapserver restore FILE; with another folder: --data-dir';
    return [fail(`${dataDir} has no overlay.json`, advice)];
  }
  const open = ['.', 'overlay.json', 'server-certificate.json', 'store.db'].filter((name) => {
    const path = join(dataDir, name);
    return existsSync(path) && (statSync(path).mode & 0o077) !== 0;
  });
  if (open.length === 0) return [ok(`${dataDir} is for its owner alone`)];
  return [fail(`in ${dataDir} others may read ${open.join(', ')}`, `sudo chmod -R go= ${dataDir}`)];
}

function checkDisk({ dataDir, audit }: MapServerSettings): readonly Outcome[] {
  const { bavail, bsize } = statfsSync(dataDir);
  const free = Math.floor((bavail * bsize) / 1_048_576);
  const found = `${free} MB are free for ${dataDir}`;
  if (free < LEAST_MB) return [fail(found, 'make room: without it, no change of an owner is taken')];
  if (free < audit.maxMegabytes + LEAST_MB) return [warn(found, 'the next audit log does not fit: make room')];
  return [ok(found)];
}

function checkStore({ dataDir }: MapServerSettings): readonly Outcome[] {
  const path = join(dataDir, 'store.db');
  if (!existsSync(path)) return [skipped(`${path} is made at the first start`)];
  try {
    checkDatabase(path);
  } catch (error) {
    return [fail((error as Error).message, 'stop the map server; stayput mapserver restore FILE --force')];
  }
  return [ok(`${path} is whole, ${Math.ceil(statSync(path).size / 1024)} KiB`)];
}

function checkCertificates({ dataDir }: MapServerSettings): readonly Outcome[] {
  const files = overlayOf(dataDir);
  if (typeof files === 'string') return [skipped(files)];
  return [
    judge('authority', files.authority.certificate, AUTHORITY_WARNING, 'stayput mapserver ca rotate'),
    judge(
      'server',
      serverCertificate(dataDir),
      SERVER_WARNING,
      'it renews itself while it runs: see its log for why not',
    ),
  ];
}

/** PEM. */
function serverCertificate(dataDir: string): string {
  const text = readFileSync(join(dataDir, 'server-certificate.json'), 'utf8');
  return z.object({ certificate: z.string() }).parse(JSON.parse(text)).certificate;
}

function judge(what: string, pem: string, warning: number, advice: string): Outcome {
  const { validTo } = new X509Certificate(pem);
  const days = Math.floor((Date.parse(validTo) - Date.now()) / DAY);
  if (days < 0) return fail(`the certificate of the ${what} ended on ${validTo}`, advice);
  if (days < warning) return warn(`the certificate of the ${what} ends in ${days} days`, advice);
  return ok(`the certificate of the ${what} is valid for ${days} more days`);
}

async function checkUnit(): Promise<readonly Outcome[]> {
  const [unit] = (await unitStates([UNIT])) ?? [];
  if (unit === undefined || unit.state === 'missing') return [skipped(`systemd does not have ${UNIT}`)];
  if (unit.state !== 'active')
    return [fail(`${UNIT} is ${unit.state}`, `sudo systemctl start ${UNIT}; journalctl -u ${UNIT} -n 20`)];
  if (unit.enabled === 'disabled')
    return [warn(`${UNIT} does not start with the machine`, `sudo systemctl enable ${UNIT}`)];
  return [ok(`${UNIT} is active`)];
}

async function checkRunning({ dataDir, limits }: MapServerSettings): Promise<readonly Outcome[]> {
  let status: z.output<typeof STATUS>;
  try {
    status = STATUS.parse(
      await callApi({ socketPath: join(dataDir, 'admin.sock') }, 'GET', '/v1/status', { timeoutMs: TIMEOUT }),
    );
  } catch (error) {
    const advice = `sudo systemctl start ${UNIT}; as a person: sudo stayput mapserver doctor`;
    return [
      fail(`no answer from the map server of ${dataDir} (${(error as Error).message.split('\n', 1)[0]})`, advice),
    ];
  }
  const { version, agents, sessions, mappings, auditLinesLost } = status;
  const outcomes: Outcome[] = [ok(`${agents} agents, ${sessions} connected, ${mappings} EIDs`)];
  if (version !== VERSION)
    outcomes.push(warn(`${version} runs, ${VERSION} is installed`, `sudo systemctl restart ${UNIT}`));
  if (auditLinesLost > 0)
    outcomes.push(fail(`the audit log has lost ${auditLinesLost} lines`, 'is the disk full or read-only?'));
  for (const [what, count, limit] of [
    ['agents', agents, limits.agents],
    ['mappings', mappings, limits.mappings],
  ] as const) {
    if (count > 0.9 * limit)
      outcomes.push(warn(`${count} of ${limit} ${what}`, `raise limits.${what}, and stayput mapserver reload`));
  }
  return outcomes;
}

/** As agents do it, under each of the names that they may have been told. */
async function checkReachable({ dataDir }: MapServerSettings): Promise<readonly Outcome[]> {
  const files = overlayOf(dataDir);
  if (typeof files === 'string') return [skipped(files)];
  const { hosts, port, authority } = files;
  return Promise.all(
    hosts.map(async (host) => {
      const where = formatHostPort(host, port);
      try {
        await callApi({ host, port, ca: authority.certificate }, 'GET', '/v1/ca', { timeoutMs: TIMEOUT });
        return ok(`${where} answers, seen from here`);
      } catch (error) {
        const why = (error as Error).message.split('\n', 1)[0];
        return fail(
          `${where}: ${why}`,
          `does the name lead here, and does it listen there (listen)? If only from here: NAT without hairpin`,
        );
      }
    }),
  );
}

/** Why it cannot be read, in words. */
function overlayOf(dataDir: string): Omit<OverlayFiles, 'server'> | string {
  try {
    return readOverlay(dataDir);
  } catch (error) {
    return (error as Error).message;
  }
}

const STATUS = z.object({
  version: z.string(),
  agents: z.number(),
  sessions: z.number(),
  mappings: z.number(),
  auditLinesLost: z.number(),
});
const UNIT = 'stayput-mapserver.service';
const DAY = 86_400_000;
/** Days. */
const AUTHORITY_WARNING = 180;
const SERVER_WARNING = 60;
const LEAST_MB = 64;
/** Milliseconds. */
const TIMEOUT = 5_000;
