/**
 * What becomes a line in the audit log: each call of the admin API that changes something, whatever comes of it, and
 * what the core tells of agents. Secrets stay out since only what is named here is taken over.
 */
import { StayputError } from '../../proto/errors.ts';
import type { Route } from '../../runtime/http-api.ts';
import type { ServerEvent } from '../core/actions.ts';
import type { AuditEntry, AuditEvent, AuditLog } from './audit-log.ts';

interface RouteAudit {
  readonly event: AuditEvent;
  /** What of the body is told. */
  readonly asked: readonly string[];
  /** What of the answer is told. */
  readonly answered: readonly string[];
}

/** By method and path: every route of the admin API that changes something. */
export const AUDITED_ROUTES: Readonly<Record<string, RouteAudit>> = {
  'POST /v1/tokens': {
    event: 'token-created',
    asked: ['eids', 'pools', 'names', 'groups', 'uses', 'expiresInMs'],
    answered: ['id', 'expiresAt'],
  },
  'DELETE /v1/tokens/:id': { event: 'token-revoked', asked: [], answered: ['id'] },
  'DELETE /v1/agents/:xtrId': { event: 'agent-revoked', asked: ['withToken'], answered: ['xtrId', 'tokenId'] },
  'POST /v1/eids': {
    event: 'eid-attach-ordered',
    asked: ['eid', 'agent', 'interface'],
    answered: ['generation', 'owner'],
  },
  'POST /v1/moves': {
    event: 'eid-move-ordered',
    asked: ['eid', 'agent', 'interface'],
    answered: ['generation', 'owner'],
  },
  'DELETE /v1/eids/:eid': { event: 'eid-detach-ordered', asked: [], answered: ['owner'] },
  'POST /v1/grants': { event: 'grant-added', asked: ['agent', 'eids', 'names', 'groups'], answered: ['xtrId'] },
  'DELETE /v1/grants': { event: 'grant-removed', asked: ['agent', 'eids', 'names', 'groups'], answered: ['xtrId'] },
  'POST /v1/zone/names': {
    event: 'name-set',
    asked: ['name', 'ttl', 'cname', 'srv', 'txt', 'ns', 'addresses', 'weights'],
    answered: ['version'],
  },
  'DELETE /v1/zone/names/:name': { event: 'name-removed', asked: ['type'], answered: ['version'] },
  'POST /v1/sites': {
    event: 'site-added',
    asked: ['name', 'instance', 'prefixes', 'allowSha1', 'legacyReplay', 'maxEids'],
    answered: [],
  },
  'POST /v1/sites/:name': {
    event: 'site-changed',
    asked: ['prefixes', 'allowSha1', 'legacyReplay', 'maxEids'],
    answered: [],
  },
  'DELETE /v1/sites/:name': { event: 'site-removed', asked: [], answered: [] },
  'POST /v1/sites/:name/keys': { event: 'site-key-added', asked: ['keyId', 'algorithm'], answered: [] },
  'DELETE /v1/sites/:name/keys/:keyId': { event: 'site-key-removed', asked: [], answered: [] },
  'POST /v1/policy': { event: 'policy-changed', asked: ['ifVersion'], answered: ['version'] },
  'POST /v1/policy/rollback': { event: 'policy-changed', asked: ['ifVersion'], answered: ['version'] },
  'POST /v1/reload': { event: 'configuration-reloaded', asked: [], answered: ['applied', 'needRestart'] },
  'POST /v1/log-level': { event: 'log-level-set', asked: ['level', 'forMs', 'module'], answered: [] },
  'POST /v1/authority/rotate': { event: 'authority-rotated', asked: [], answered: ['authority'] },
  'POST /v1/authority/retire': { event: 'authority-retired', asked: ['force'], answered: ['authority'] },
};

/** Those that change nothing although they are no GET. */
export const READING_ROUTES: ReadonlySet<string> = new Set(['POST /v1/policy/check']);

/** The same routes, each of which leaves a line if it changes something or was to. */
export function auditedRoutes(routes: readonly Route[], audit: AuditLog): Route[] {
  return routes.map((route) => {
    const reads = route.method === 'GET' || READING_ROUTES.has(`${route.method} ${route.path}`);
    return reads ? route : auditedRoute(route, audit);
  });
}

/** For `what` was done by `who` in `run`: one line, with its result. */
export async function audited<T>(
  audit: Pick<AuditLog, 'write'>,
  entry: Omit<AuditEntry, 'result'>,
  run: () => T | Promise<T>,
  answered: (answer: T) => Readonly<Record<string, unknown>> = () => ({}),
): Promise<T> {
  let answer: T;
  try {
    answer = await run();
  } catch (error) {
    audit.write({ ...entry, result: codeOf(error) });
    throw error;
  }
  audit.write({ ...entry, what: { ...entry.what, ...answered(answer) }, result: 'ok' });
  return answer;
}

export function codeOf(error: unknown): string {
  return error instanceof StayputError ? error.code : 'STAYPUT_INTERNAL';
}

/** What the core tells. `from`: where that agent is connected from. Calls of the APIs have lines of their own. */
export function auditEvent(audit: AuditLog, event: ServerEvent, from: (xtrId: string) => string | undefined): void {
  const line = (kind: AuditEvent, xtrId: string, what: AuditEntry['what'], result = 'ok'): AuditEntry => {
    const address = from(xtrId);
    return { event: kind, who: `agent ${xtrId}`, ...(address === undefined ? {} : { from: address }), what, result };
  };
  switch (event.kind) {
    case 'registration':
      switch (event.result) {
        case 'taken':
          // A move has its line when it is published.
          if (event.previous === undefined) audit.writeOfAgent(line('eid-taken', event.xtrId, { eid: event.eid }));
          return;
        case 'recovered':
          audit.writeOfAgent(line('eid-recovered', event.xtrId, { eid: event.eid }));
          return;
        case 'released':
          audit.writeOfAgent(line('eid-released', event.xtrId, { eid: event.eid }));
          return;
        case 'refreshed':
        case 'target':
          return;
        default:
          audit.writeLimited(line('registration-refused', event.xtrId, { eid: event.eid }, event.result));
          return;
      }
    case 'moved': {
      const { eid, from: before, to, generation } = event;
      audit.writeOfAgent(line('eid-moved', to, { eid, before, to, generation }));
      return;
    }
    case 'withdrawn':
      if (event.count > 0) {
        const what = { agent: event.xtrId, count: event.count };
        audit.write({ event: 'eid-withdrawn', who: 'map server', what, result: 'ok' });
      }
      return;
    case 'rejected':
      audit.writeLimited(line('message-rejected', event.xtrId, {}, event.reason));
      return;
    case 'lisp-received': {
      const { from: address, message, result } = event;
      if (result !== 'authentication' && result !== 'replay' && result !== 'restored') return;
      audit.writeLimited({ event: 'authentication-failed', who: 'unknown', from: address, what: { message }, result });
      return;
    }
    case 'limit':
    case 'operation':
    case 'order':
    case 'names-changed':
    case 'policy-sent':
    case 'policy-too-large':
    case 'request':
    case 'notify':
    case 'lisp-sent':
    case 'lisp-notify':
      return;
    default:
      event satisfies never;
  }
}

function auditedRoute(route: Route, audit: AuditLog): Route {
  const { method, path } = route;
  const known = AUDITED_ROUTES[`${method} ${path}`];
  const { event, asked, answered } = known ?? { event: 'other-change' as const, asked: [], answered: [] };
  return {
    ...route,
    handle: (request) => {
      const what = {
        ...(known === undefined ? { method, path } : {}),
        ...request.params,
        ...picked(request.body, asked),
      };
      const entry = { event, who: 'admin', from: 'admin socket', what };
      return audited(
        audit,
        entry,
        () => route.handle(request),
        (answer) => picked(answer, answered),
      );
    },
  };
}

function picked(value: unknown, keys: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return {};
  return Object.fromEntries(keys.flatMap((key) => (key in value ? [[key, value[key as keyof typeof value]]] : [])));
}
