import { pino } from 'pino';

export type Log = pino.Logger;
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

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
