import { pino } from 'pino';

export type Log = pino.Logger;
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
/** Parts of the daemons whose level can be set on its own. */
export type LogModule = 'agents' | 'audit' | 'dataplane' | 'dns' | 'map-server' | 'platform' | 'reflector' | 'zone';

/** JSON lines on stderr: the message is constant, data are fields named in docs/logging.md. */
export function createLog(daemon: 'agent' | 'dns-host' | 'mapserver', level: LogLevel): Log {
  return pino(
    {
      level,
      base: { daemon },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: ['*.privateKey', '*.presharedKey', '*.token', '*.secret', '*.authorization'],
    },
    pino.destination({ dest: 2, sync: true }),
  );
}

/** The log of a part, with the field `module`; one for each, however often it is asked for. */
export function moduleLog(log: Log, module: LogModule): Log {
  const known = moduleLogs(log);
  const made = known.get(module) ?? log.child({ module });
  MODULES.set(log, known.set(module, made));
  return made;
}

/** Those that were asked for. */
export function moduleLogs(log: Log): Map<LogModule, Log> {
  return MODULES.get(log) ?? new Map();
}

const MODULES = new WeakMap<Log, Map<LogModule, Log>>();
