/** Wires the agent: state folder, core, links, admin socket, DNS, metrics. */
import type { StatsReply } from '../proto/dataplane/messages.ts';
import { instanceId } from '../proto/eid.ts';
import { inheritedSockets } from '../runtime/inherited-sockets.ts';
import { createLog, moduleLog } from '../runtime/log.ts';
import { LogLevels, logLevelRoutes } from '../runtime/log-level.ts';
import { startMetricsServer } from '../runtime/metrics-server.ts';
import { VERSION } from '../runtime/project-root.ts';
import type { ReadinessCheck } from '../runtime/readiness.ts';
import { Reload, reloadRoutes } from '../runtime/reload.ts';
import { Shutdown } from '../runtime/shutdown.ts';
import { notifySystemd } from '../runtime/watchdog.ts';
import type { AgentConfig } from './config.ts';
import { type EidState, isTakenOver } from './core/registrar.ts';
import { countRlocs } from './core/rloc-probes.ts';
import { startAdminSocket } from './shell/admin-socket.ts';
import { CachedNameResolver } from './shell/cached-name-resolver.ts';
import { type DnsServer, startDnsServer } from './shell/dns-server.ts';
import { AgentDriver } from './shell/driver.ts';
import { StateFolder } from './shell/identity.ts';
import { AgentMetrics } from './shell/metrics.ts';
import { agentReadiness, dataplaneState } from './shell/readiness.ts';

export const SOFTWARE = `stayput ${VERSION}`;

/** `read`: the configuration, now. Runs until SIGTERM or SIGINT. @throws UsageError when it cannot start */
export async function runAgent(read: () => AgentConfig): Promise<void> {
  const config = read();
  const log = createLog('agent', config.logLevel);
  const levels = new LogLevels(log, config.logLevel);
  const inherited = inheritedSockets();
  const folder = new StateFolder(config.stateDir);
  const identity = folder.requireIdentity();
  const shutdown = new Shutdown();
  const driver = new AgentDriver(config, identity, folder, SOFTWARE, log);
  const metrics = new AgentMetrics(
    () => gauges(driver),
    () => statsOf(driver),
  );
  try {
    let dns: DnsServer | undefined;
    let wanted = config.dns;
    const ask = (next: AgentConfig): void => {
      wanted = next.dns;
      dns?.ask(wanted.upstreams, wanted.zones);
    };
    const reload = new Reload<AgentConfig>(
      config,
      read,
      {
        logLevel: (next) => levels.configure(next.logLevel),
        locators: (next) => driver.useLocators(next.locators),
        'dns.upstreams': ask,
        'dns.zones': ask,
      },
      log,
    );
    const admin = await startAdminSocket(config.socket, driver, identity, () => dns, log, [
      ...logLevelRoutes(levels),
      ...reloadRoutes(reload),
    ]);
    shutdown.add('reload', reload.onHangUp());
    shutdown.add('admin socket', () => admin.close());
    if (config.metricsListen !== null) {
      const server = await startMetricsServer(config.metricsListen, {
        registry: metrics.registry,
        readiness: () => readiness(driver, config.dns.enabled ? { listening: dns !== undefined } : undefined),
      });
      shutdown.add('metrics', () => server.close());
    }
    if (config.dns.enabled) {
      const started = await startDnsServer({
        listen: config.dns.listen,
        inherited,
        resolver: new CachedNameResolver(driver, instanceId(identity.instance)),
        // Those that are in force when it listens: they may have been read again by then.
        get upstreams() {
          return wanted.upstreams;
        },
        get zones() {
          return wanted.zones;
        },
        tlsAuthorities: config.dns.tlsAuthorities,
        queryLog: config.dns.queryLog,
        mapServer: identity.mapServer.host,
        resolvConf: config.dns.resolvConf,
        cacheEntries: config.dns.cacheEntries,
        registry: metrics.registry,
        log: moduleLog(log, 'dns'),
      });
      dns = started;
      shutdown.add('DNS', () => started.close());
    }
    if (inherited.unused.length > 0) log.warn({ listen: inherited.unused }, 'sockets that dns.listen does not name');
    // Last: a second agent on this host fails above, before it takes session, data plane or files from the first.
    shutdown.add('agent', () => driver.close());
    if (config.lisp.plain.length > 0) await driver.serveLisp();
    driver.start(metrics);
    if (config.platform !== 'off') driver.followPlatform(config, metrics);
  } catch (error) {
    await shutdown.end(log);
    throw error;
  }
  log.info({ xtrId: identity.xtrId, pid: process.pid, version: VERSION }, 'agent is running');
  const notifier = notifySystemd(log);
  shutdown.add('watchdog', () => notifier.close());
  await shutdown.onSignals(log);
}

async function readiness(
  driver: AgentDriver,
  dns: { readonly listening: boolean } | undefined,
): Promise<readonly ReadinessCheck[]> {
  const { agent, mapServer, dataplane } = driver;
  const answers = (await statsOf(driver)) !== null;
  const own = agent.ownEids();
  return agentReadiness({
    fence: driver.fence,
    dataplane: dataplaneState(dataplane, answers),
    mapServer: { connected: mapServer.connected, problem: mapServer.lastProblem },
    registered: own.some(({ kind, confirmedAt }) => kind === 'agent' && confirmedAt !== null),
    locators: agent.snapshot(driver.now()).locators.length,
    eids: own
      .filter(({ kind }) => kind !== 'agent')
      .map((each) => ({
        eid: each.eid.kind === 'prefix' ? each.eid.prefix : each.eid.name,
        state: each.state,
        takenOver: isTakenOver(each),
        problem: each.problem,
      })),
    dns,
    unwritten: driver.unwrittenState,
    certificate: driver.certificate.warning,
  });
}

function gauges(driver: AgentDriver) {
  const { cache, peers, policy } = driver.agent.snapshot(driver.now());
  const eids: Record<EidState, number> = { base: 0, target: 0, live: 0, drain: 0, lost: 0 };
  let takenOver = 0;
  for (const own of driver.agent.ownEids()) {
    if (own.kind !== 'agent') eids[own.state]++;
    if (isTakenOver(own)) takenOver++;
  }
  const { mapServer, dataplane } = driver;
  const fenced = driver.fence !== null;
  const certificateNotAfter = driver.certificate.notAfter;
  return {
    fenced,
    certificateNotAfter,
    mapServerConnected: mapServer.connected,
    dataplaneConnected: dataplane.connected,
    cache,
    eids,
    takenOver,
    peers,
    rlocs: countRlocs(driver.agent.probedRlocs()),
    policy: { version: policy.version, rules: policy.rules.length },
  };
}

/** Null while the data plane is away, or does not answer in time. */
async function statsOf({ dataplane }: AgentDriver): Promise<StatsReply | null> {
  return dataplane.stats().catch(() => null);
}
