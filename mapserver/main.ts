/** The map server as a process: store, core, TLS port, admin socket and metrics, put together. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { UsageError } from '../proto/errors.ts';
import { nonce } from '../proto/lisp/header.ts';
import { apiListener } from '../runtime/http-api.ts';
import { createLog, moduleLog } from '../runtime/log.ts';
import { LogLevels, logLevelRoutes } from '../runtime/log-level.ts';
import { startMetricsServer } from '../runtime/metrics-server.ts';
import { VERSION } from '../runtime/project-root.ts';
import { type Apply, Reload, reloadRoutes } from '../runtime/reload.ts';
import { Shutdown } from '../runtime/shutdown.ts';
import { listenOnUnixSocket } from '../runtime/unix-server.ts';
import { notifySystemd } from '../runtime/watchdog.ts';
import type { MapServerSettings } from './config.ts';
import { MapServer } from './core/map-server.ts';
import { adminRoutes } from './shell/admin-api.ts';
import { AuditLog } from './shell/audit-log.ts';
import { auditedRoutes } from './shell/audited.ts';
import { authorityRoutes } from './shell/authority-api.ts';
import { ControlServer } from './shell/control-server.ts';
import { discoveryRoutes } from './shell/discovery-api.ts';
import { Driver } from './shell/driver.ts';
import { enrolmentRoutes } from './shell/enrolment.ts';
import { Exporters } from './shell/exporters.ts';
import { LimitReports } from './shell/limit-reports.ts';
import { LispListener } from './shell/lisp-listener.ts';
import { lispSettings } from './shell/lisp-settings.ts';
import { MapServerMetrics } from './shell/metrics.ts';
import { type OverlaySettings, openOverlay } from './shell/overlay-files.ts';
import { MapServerReadiness } from './shell/readiness.ts';
import { ReflectorListener } from './shell/reflector-listener.ts';
import { Trust } from './shell/trust.ts';
import { ZoneServer } from './shell/zone-server.ts';
import { SqliteStore } from './store/sqlite.ts';

export interface RunningMapServer {
  /** HOST:PORT, as bound. */
  readonly listen: readonly string[];
  readonly metricsPort: number | undefined;
  /** HOST:PORT of LISP over UDP, as bound. */
  readonly lispListen: readonly string[];
  /** HOST:PORT of the reflector, as bound. */
  readonly reflectorListen: readonly string[];
  readonly adminSocket: string;
  /** Resolves after SIGTERM or SIGINT, when all is closed. */
  untilSignal(): Promise<void>;
  close(): Promise<void>;
}

export function adminSocketPath(dataDir: string): string {
  return join(dataDir, 'admin.sock');
}

/** `read`: the configuration, when it is to be read again. @throws UsageError, StoreError */
export async function startMapServer(
  settings: MapServerSettings,
  read: () => MapServerSettings = () => settings,
): Promise<RunningMapServer> {
  const log = createLog('mapserver', settings.logLevel);
  const shutdown = new Shutdown();
  try {
    return await start(settings, read, log, shutdown);
  } catch (error) {
    await shutdown.end(log);
    throw error;
  }
}

async function start(
  settings: MapServerSettings,
  read: () => MapServerSettings,
  log: ReturnType<typeof createLog>,
  shutdown: Shutdown,
): Promise<RunningMapServer> {
  const { dataDir, limits, heartbeatMs } = settings;
  process.umask(0o077);
  const startedAt = Date.now();
  const overlay = openOverlay(dataDir, startedAt);
  const { enrolment } = settings;
  const renewableFor = enrolment.expiredRenewal === 'allow' ? enrolment.expiredMaxDays * 86_400_000 : 0;
  const trust = new Trust(dataDir, overlay, enrolment.certificateHours * 3_600_000, renewableFor);
  const metrics = new MapServerMetrics();
  const core = new MapServer({
    overlay: { instance: overlay.instance, prefixes: overlay.prefixes },
    grace: settings.graceSeconds * 1000,
    limits,
    lisp: lispSettings(settings.lisp),
    wallClock: Date.now,
    randomNonce: () => nonce(randomBytes(8).readBigUInt64BE()),
  });
  metrics.observe(core);
  metrics.observeTrust(trust);
  const reports = new LimitReports(metrics, log);
  shutdown.add('limit reports', () => reports.close());
  const audit = new AuditLog({
    dataDir,
    maxOctets: settings.audit.maxMegabytes * 1_048_576,
    olderFiles: settings.audit.olderFiles,
    log: moduleLog(log, 'audit'),
    count: (what, lines) => metrics.audited(what, lines),
  });
  shutdown.add('audit log', () => {
    audit.write({ event: 'map-server-stopped', who: 'map server', what: { pid: process.pid }, result: 'ok' });
    audit.close();
  });
  let control: ControlServer | undefined;
  let reflector: ReflectorListener | undefined;
  const reflectorPorts = () => reflector?.ports ?? [];
  let metricsPort: number | undefined;
  let lispListen: readonly string[] = [];
  // First of all: it is what tells two map servers on one folder apart.
  const adminSocket = adminSocketPath(dataDir);
  let routes: ReturnType<typeof adminRoutes> = [];
  const admin = await listenOnUnixSocket(adminSocket, 0o600, (request, response) =>
    apiListener(routes, (error) => log.error({ err: error }, 'admin request failed'))(request, response),
  );
  shutdown.add('admin socket', () => {
    admin.closeAllConnections();
    return new Promise((resolve) => admin.close(resolve));
  });
  const store = new SqliteStore({
    path: join(dataDir, 'store.db'),
    clock: Date.now,
    onCommit: (seconds) => metrics.committed(seconds),
  });
  shutdown.add('store', () => store.close());
  const driver = new Driver({ core, store, metrics, reports, audit, log });
  shutdown.add('core', () => driver.close());
  await driver.start();
  const administration = [
    ...adminRoutes({
      driver,
      trust,
      overlay,
      startedAt,
      listen: () => control?.addresses ?? [],
      metricsPort: () => metricsPort,
      auditLost: () => audit.lostLines,
    }),
    ...authorityRoutes(trust, core),
  ];
  const levels = new LogLevels(log, settings.logLevel);
  const reload = new Reload(
    settings,
    read,
    {
      logLevel: (next) => levels.configure(next.logLevel),
      // Each is read from this object where it counts.
      ...Object.fromEntries(
        LIVE_LIMITS.map((key): [string, Apply<MapServerSettings>] => [
          `limits.${key}`,
          (next) => {
            limits[key] = next.limits[key];
          },
        ]),
      ),
    },
    log,
  );
  shutdown.add('reload', reload.onHangUp());
  routes = auditedRoutes([...administration, ...logLevelRoutes(levels), ...reloadRoutes(reload)], audit);
  const exporters = new Exporters(core, overlay.instance);
  control = new ControlServer({
    trust,
    overlay,
    routes: [
      ...enrolmentRoutes({ driver, overlay, trust, metrics, reports, audit, settings, reflectorPorts }),
      ...discoveryRoutes({ tokenFile: settings.discoveryTokenFile, exporters, metrics, audit, log }),
    ],
    exporters,
    reflectorPorts,
    heartbeatMs,
    enrolment: settings.enrolment,
    limits,
    driver,
    metrics,
    reports,
    audit,
    log: moduleLog(log, 'agents'),
  });
  const server = control;
  shutdown.add('control server', () => server.close());
  await listenAll(server, settings.listen ?? [`0.0.0.0:${overlay.port}`, `[::]:${overlay.port}`], log);
  const reflecting = await ReflectorListener.start({
    listen: settings.reflectorListen,
    control: server.addresses,
    others: [...settings.zone.listen, ...settings.lisp.listen],
    count: (result) => metrics.reflected(result),
    log: moduleLog(log, 'reflector'),
  });
  reflector = reflecting;
  shutdown.add('reflector', () => reflecting.close());
  if (settings.metricsListen !== '') {
    const readiness = new MapServerReadiness({
      store,
      listen: () => server.addresses,
      auditLost: () => audit.lostLines,
      ends: () => trust.ends(),
      clock: Date.now,
    });
    const metricsServer = await startMetricsServer(settings.metricsListen, {
      registry: metrics.registry,
      readiness: () => readiness.checks(),
    });
    metricsPort = metricsServer.port;
    shutdown.add('metrics', () => metricsServer.close());
  }
  const zone = await serveZone(settings, { overlay, driver, audit, metrics, log: moduleLog(log, 'zone') });
  if (zone !== undefined) shutdown.add('zone', () => zone.close());
  if (settings.lisp.listen.length > 0) {
    const lisp = await LispListener.start(settings.lisp.listen, (from, bytes) => driver.receiveDatagram(from, bytes));
    shutdown.add('LISP', () => lisp.close());
    driver.serveLisp((to, bytes) => lisp.send(to, bytes));
    lispListen = lisp.addresses;
    log.info({ listen: lispListen }, 'LISP is served over UDP');
  }
  trust.onChange(() => server.handleTrust());
  const renewal = setInterval(() => {
    try {
      const now = Date.now();
      if (trust.renewServer(now)) {
        audit.write({ event: 'server-certificate-renewed', who: 'map server', what: {}, result: 'ok' });
        log.info('certificate of the map server renewed');
      }
      if (trust.retireIfUnused(core.state.records(), now)) {
        audit.write({ event: 'authority-retired', who: 'map server', what: {}, result: 'ok' });
        log.info('former certificate authority retired, nobody depends on it any more');
      }
    } catch (error) {
      log.error({ err: error, dataDir }, 'certificates cannot be renewed');
    }
  }, RENEWAL_CHECK);
  shutdown.add('certificate renewal', () => clearInterval(renewal));
  const what = { version: VERSION, pid: process.pid };
  audit.write({ event: 'map-server-started', who: 'map server', what, result: 'ok' });
  log.info(
    { listen: server.addresses, reflector: reflecting.addresses, metricsPort, dataDir },
    'map server is running',
  );
  const notifier = notifySystemd(log);
  shutdown.add('watchdog', () => notifier.close());
  return {
    listen: server.addresses,
    metricsPort,
    lispListen,
    reflectorListen: reflecting.addresses,
    adminSocket,
    untilSignal: () => shutdown.onSignals(log),
    close: () => shutdown.end(log),
  };
}

/** Undefined: it is not to be served. */
async function serveZone(
  settings: MapServerSettings,
  parts: {
    readonly overlay: OverlaySettings;
    readonly driver: Driver;
    readonly audit: AuditLog;
    readonly metrics: MapServerMetrics;
    readonly log: ReturnType<typeof createLog>;
  },
): Promise<ZoneServer | undefined> {
  if (settings.zone.listen.length === 0) return undefined;
  const { overlay, ...rest } = parts;
  return ZoneServer.start({
    settings: settings.zone,
    zone: overlay.zone,
    prefixes: overlay.prefixes,
    serialsFile: join(settings.dataDir, 'zone-serial.json'),
    signedFile: join(settings.dataDir, 'zone-signed.json'),
    ...rest,
  });
}

/** With several addresses, one that this machine does not have (no IPv6) is left out. */
async function listenAll(
  server: ControlServer,
  listen: string | readonly string[],
  log: ReturnType<typeof createLog>,
): Promise<void> {
  const wanted = typeof listen === 'string' ? [listen] : listen;
  for (const address of wanted) {
    try {
      await server.listen(address);
    } catch (error) {
      const code = (error as { cause?: NodeJS.ErrnoException }).cause?.code;
      if (wanted.length === 1 || (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL')) throw error;
      log.warn({ address, code }, 'address is not available here');
    }
  }
  if (server.addresses.length === 0) throw new UsageError(`none of ${wanted.join(', ')} can be listened on`);
}

const RENEWAL_CHECK = 600_000;
/** Limits that are looked up each time that they count; the others are taken over when their parts are made. */
const LIVE_LIMITS = [
  'connections',
  'connectionsPerAddress',
  'waitingConnections',
  'waitingConnectionsPerAddress',
  'handshakeSeconds',
  'requestSeconds',
  'messageSeconds',
  'bufferedOctets',
  'agents',
  'tokens',
  'names',
  'mappingsPerAgent',
  'releasedPerAgent',
  'mappings',
  'sites',
  'mappingsPerSite',
] as const;
