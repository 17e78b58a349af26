/** Cores that are broken on purpose: the model must find each of them, or it would find nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Agent } from '../../agent/core/agent.ts';
import { MapServer } from '../../mapserver/core/map-server.ts';
import { eidKey } from '../../proto/eid.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import { mapNotify, mappingsOf, mapRegister } from '../../proto/lisp/native.ts';
import { type Generation, isTarget, isWithdrawal } from '../../proto/mapping.ts';
import { type Cores, PRODUCT, runSchedule } from './run.ts';
import { schedules } from './transitions.ts';

/** Goes on as the owner, whoever has taken over: takes every newer generation for an older one. */
class NeverLetsGo extends Agent {
  override handleMessage(...[message, now]: Parameters<Agent['handleMessage']>): void {
    const live = new Set(this.ownEids().flatMap(({ state, key }) => (state === 'live' ? [key] : [])));
    super.handleMessage(
      message.type === 'map-notify'
        ? mapNotify({
            nonce: message.nonce,
            mappings: mappingsOf(message).map((each) =>
              live.has(eidKey(each.eid)) && each.owner !== message.xtrId ? { ...each, generation: OLD } : each,
            ),
          })
        : message,
      now,
    );
  }
}

/** Has forgotten what it owned when it is started again. */
class ForgetsItsEids extends Agent {
  constructor(...[options, now]: ConstructorParameters<typeof Agent>) {
    super({ ...options, saved: { ...options.saved, eids: [] } }, now);
  }
}

/** Has work that it does not ask to be woken for. */
class Oversleeps extends Agent {
  override pollTimeout(): number {
    const due = super.pollTimeout();
    return due === Number.NEGATIVE_INFINITY ? due : due + 1500;
  }
}

/** Keeps what it should let go of. */
class Hoards extends Agent {
  readonly hoard: LispMessage[] = [];

  override handleMessage(...[message, now]: Parameters<Agent['handleMessage']>): void {
    for (let i = 0; i < 20; i++) this.hoard.push(message);
    super.handleMessage(message, now);
  }
}

/** Starts without the records of owners: generations begin anew. */
class ForgetsGenerations extends MapServer {
  override handleRestore(...[records, now]: Parameters<MapServer['handleRestore']>): void {
    super.handleRestore(
      records.filter(({ record }) => record?.kind !== 'eid'),
      now,
    );
  }
}

/** Takes whoever says that it still owns an EID for one that takes it over. */
class IgnoresGenerations extends MapServer {
  override handleMessage(...[id, message, now]: Parameters<MapServer['handleMessage']>): void {
    if (message.type !== 'map-register' || message.xtrId === undefined) {
      super.handleMessage(id, message, now);
      return;
    }
    const mappings = mappingsOf(message).map((each) =>
      isTarget(each) || isWithdrawal(each) ? each : { ...each, generation: OLD },
    );
    super.handleMessage(id, mapRegister({ nonce: message.nonce, xtrId: message.xtrId, mappings }), now);
  }
}

/** Publishes no change. */
class TellsNobody extends MapServer {
  override pollActions(): ReturnType<MapServer['pollActions']> {
    return super
      .pollActions()
      .filter(({ kind, ...rest }) => !(kind === 'send' && 'message' in rest && isPublication(rest.message)));
  }
}

const MUTANTS: Readonly<Record<string, Partial<Cores>>> = {
  'an agent that never lets go': { makeAgent: (options, now) => new NeverLetsGo(options, now) },
  'an agent that forgets its EIDs': { makeAgent: (options, now) => new ForgetsItsEids(options, now) },
  'an agent that oversleeps': { makeAgent: (options, now) => new Oversleeps(options, now) },
  'an agent that hoards': { makeAgent: (options, now) => new Hoards(options, now) },
  'a map server that ignores generations': { makeMapServer: (config) => new IgnoresGenerations(config) },
  'a map server that forgets generations': { makeMapServer: (config) => new ForgetsGenerations(config) },
  'a map server that tells nobody': { makeMapServer: (config) => new TellsNobody(config) },
};

for (const [name, cores] of Object.entries(MUTANTS)) {
  test(`the model finds ${name}`, (t) => {
    const result = fc.check(
      fc.property(schedules(MAX_STEPS), (schedule) => {
        runSchedule(schedule, { ...PRODUCT, ...cores });
      }),
      { seed: 1, numRuns: RUNS, endOnFailure: true },
    );
    assert.ok(result.failed, `not within ${RUNS} schedules`);
    t.diagnostic(`in schedule ${result.numRuns}: ${(result.errorInstance as Error).message}`);
  });
}

function isPublication(message: LispMessage): boolean {
  return message.type === 'map-notify' && message.nonce >= 1n << 63n;
}

const OLD = 0 as Generation;
const RUNS = 400;
const MAX_STEPS = 24;
