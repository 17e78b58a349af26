/** HTTP service discovery for Prometheus, on the TLS port: the agents that have metrics, for whoever has the token. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { ApiError, type Route } from '../../runtime/http-api.ts';
import type { Log } from '../../runtime/log.ts';
import type { AuditLog } from './audit-log.ts';
import type { Exporters } from './exporters.ts';
import type { MapServerMetrics } from './metrics.ts';
import { remoteAddressOf } from './source-address.ts';

export interface DiscoveryOptions {
  /** Its first line is the token; read at each request, so that another one counts at once. Null: nobody is answered. */
  readonly tokenFile: string | null;
  readonly exporters: Pick<Exporters, 'targets'>;
  readonly metrics: Pick<MapServerMetrics, 'reject'>;
  readonly audit: Pick<AuditLog, 'writeLimited'>;
  readonly log: Pick<Log, 'error'>;
}

export function discoveryRoutes({ tokenFile, exporters, metrics, audit, log }: DiscoveryOptions): Route[] {
  if (tokenFile === null) return [];
  return [
    {
      method: 'GET',
      path: '/v1/prometheus/targets',
      handle: ({ raw }) => {
        let token: string;
        try {
          token = readToken(tokenFile);
        } catch (error) {
          log.error({ err: error }, 'agents cannot be listed for Prometheus');
          throw new ApiError(503, 'STAYPUT_DISCOVERY', 'the token file cannot be used; see the log of the map server');
        }
        if (bears(raw.headers.authorization, token)) return exporters.targets();
        metrics.reject('discovery-token');
        audit.writeLimited({
          event: 'authentication-failed',
          who: 'unknown',
          from: remoteAddressOf(raw.socket),
          what: { path: '/v1/prometheus/targets' },
          result: 'discovery-token',
        });
        throw new ApiError(
          401,
          'STAYPUT_DISCOVERY_TOKEN',
          'this needs "Authorization: Bearer" with the discovery token',
        );
      },
    },
  ];
}

function readToken(path: string): string {
  const { mode, size } = statSync(path);
  if ((mode & 0o007) !== 0) throw new Error(`${path} holds a secret and may be read by everybody: chmod o= it`);
  const token = size > MAX_FILE ? '' : (readFileSync(path, 'utf8').split('\n', 1)[0] ?? '').trim();
  if (token.length < MIN_TOKEN) throw new Error(`${path} is not a line of at least ${MIN_TOKEN} characters`);
  return token;
}

/** Takes as long for every wrong token. */
function bears(authorization: string | undefined, token: string): boolean {
  const [, presented = ''] = /^Bearer +(\S+)$/i.exec(authorization ?? '') ?? [];
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(presented), digest(token));
}

const MAX_FILE = 4_096;
const MIN_TOKEN = 32;
