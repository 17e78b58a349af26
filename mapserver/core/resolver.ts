/**
 * The Map-Resolver (RFC 9301): answers Map-Requests, from memory, and enters the subscriptions that they ask for.
 *
 * A subscription is confirmed by a Map-Notify with the request's nonce; any other request is answered by a Map-Reply.
 */
import { type Eid, type InstanceId, type NameEid, parseEidKey } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Nonce } from '../../proto/lisp/header.ts';
import type { MapRequest } from '../../proto/lisp/map-request.ts';
import { type MappingQuery, mapReply, negativeReply, queriesOf } from '../../proto/lisp/native.ts';
import { type Instant, minutes } from '../../proto/time.ts';
import type { RequestResult, ServerEvent } from './actions.ts';
import type { Companions } from './companions.ts';
import { chunked } from './framing.ts';
import type { MappingDatabase } from './mapping-database.ts';
import type { Names } from './names.ts';
import type { Revocations } from './revocations.ts';
import type { Session, Sessions } from './sessions.ts';
import type { Subscriptions } from './subscriptions.ts';

export interface ResolverParts {
  readonly instance: InstanceId;
  readonly database: MappingDatabase;
  readonly names: Names;
  readonly subscriptions: Subscriptions;
  readonly sessions: Sessions;
  readonly companions: Companions;
  readonly revocations: Revocations;
  readonly event: (event: ServerEvent) => void;
}

export class Resolver {
  private readonly parts: ResolverParts;

  constructor(parts: ResolverParts) {
    this.parts = parts;
  }

  handleRequest(session: Session, message: MapRequest, now: Instant): void {
    if (message.xtrId !== undefined && message.xtrId !== session.xtrId) {
      this.parts.sessions.rejectIdentity(session);
      return;
    }
    const query = this.readQuery(session, message);
    if (query === undefined) return;
    this.parts.event({ kind: 'request', result: this.answer(session, message.nonce, query, now) });
  }

  private answer(session: Session, nonce: Nonce, { eid, intent }: MappingQuery, now: Instant): RequestResult {
    const { sessions, subscriptions, database } = this.parts;
    if (intent === 'unsubscribe') {
      subscriptions.delete(session.xtrId, eid);
      return 'unsubscribed';
    }
    if (eid.iid !== this.parts.instance) {
      sessions.send(session, negativeReply({ nonce, eid, action: 'policy-denied', ttl: NEGATIVE_TTL }));
      return 'denied';
    }
    if (eid.kind === 'name') return this.answerName(session, nonce, eid, intent, now);
    const record = database.match(eid);
    if (record === undefined) {
      const revocation = this.parts.revocations.of(eid);
      if (revocation !== undefined) {
        sessions.send(session, mapReply({ nonce, mappings: [revocation] }));
        return 'revoked';
      }
      if (intent === 'subscribe') this.subscribe(session, eid, true, now);
      sessions.send(session, negativeReply({ nonce, eid, action: 'drop', ttl: NEGATIVE_TTL }));
      return 'negative';
    }
    const answer = this.parts.companions.with([record, ...database.inside(record, MAX_INSIDE)], session.xtrId);
    if (intent === 'subscribe' && this.subscribe(session, parseEidKey(record.eid), false, now)) {
      const [first = [], ...later] = chunked(answer);
      for (const mappings of later) sessions.publish(session, mappings);
      sessions.notify(session, nonce, first, 'resolution');
      return 'subscribed';
    }
    // A subscription that there is no room for: the answer must not live long in the map-cache.
    const mappings = intent === 'subscribe' ? answer.map((mapping) => ({ ...mapping, ttl: NEGATIVE_TTL })) : answer;
    sessions.send(session, mapReply({ nonce, mappings: chunked(mappings)[0] ?? [] }));
    return 'answered';
  }

  /** What is put together of what exists now ends with the subscription, unless the name itself exists. */
  private answerName(
    session: Session,
    nonce: Nonce,
    eid: NameEid,
    intent: 'lookup' | 'subscribe',
    now: Instant,
  ): RequestResult {
    const { sessions, names, companions } = this.parts;
    const mapping = names.mapping(eid.name);
    const lasting = names.entry(eid.name) !== undefined;
    const subscribed = intent === 'subscribe' && this.subscribe(session, eid, !lasting, now);
    if (mapping === undefined) {
      sessions.send(session, negativeReply({ nonce, eid, action: 'drop', ttl: NEGATIVE_TTL }));
      return 'negative';
    }
    const answer = companions.beside(mapping);
    if (subscribed) {
      sessions.notify(session, nonce, answer, 'resolution');
      return 'subscribed';
    }
    const ttl = intent === 'subscribe' ? NEGATIVE_TTL : mapping.ttl;
    sessions.send(session, mapReply({ nonce, mappings: answer.map((each) => ({ ...each, ttl })) }));
    return 'answered';
  }

  private subscribe({ xtrId }: Session, eid: Eid, temporary: boolean, now: Instant): boolean {
    const { subscriptions, event } = this.parts;
    const exceeded = subscriptions.add(xtrId, eid, temporary, now);
    if (exceeded !== undefined) event({ kind: 'limit', limit: exceeded, source: xtrId });
    return exceeded === undefined;
  }

  private readQuery(session: Session, message: MapRequest): MappingQuery | undefined {
    try {
      const [query, ...more] = queriesOf(message);
      if (query !== undefined && more.length === 0 && !message.smr && !message.probe) return query;
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
    }
    this.parts.sessions.reject(session, 'malformed');
    return undefined;
  }
}

/** More specific mappings that are told together with a prefix. */
const MAX_INSIDE = 64;
const NEGATIVE_TTL = minutes(1);
