/**
 * Whether the agent serves its purpose: `/readyz`. The data plane has no port of its own, so it is looked at through
 * the agent. Who only forwards from what is known (no map server) is not ready: it learns of no move.
 */
import type { ReadinessCheck } from '../../runtime/readiness.ts';
import type { DataplaneLink } from './dataplane-link.ts';

export interface DataplaneState {
  readonly connected: boolean;
  /** Another agent controls it. */
  readonly superseded: boolean;
  readonly problem: string | null;
  readonly answers: boolean;
}

export interface AgentState {
  /** Why nothing is done here; null when it is. */
  readonly fence: string | null;
  readonly dataplane: DataplaneState;
  readonly mapServer: { readonly connected: boolean; readonly problem: string | null };
  /** The map server has confirmed this agent's own address in this session. */
  readonly registered: boolean;
  readonly locators: number;
  readonly eids: readonly {
    readonly eid: string;
    readonly state: string;
    /** An EID of the host itself that another agent has. */
    readonly takenOver: boolean;
    readonly problem: string | null;
  }[];
  /** Undefined when it is not to answer DNS. */
  readonly dns: { readonly listening: boolean } | undefined;
  /** Why state is not on disk, a line each. */
  readonly unwritten: readonly string[];
  /** About the certificate's end; null while that is far. */
  readonly certificate: string | null;
}

/** One check for each thing that it needs, in a fixed order. Of a fenced agent nothing but that counts. */
export function agentReadiness(state: AgentState): readonly ReadinessCheck[] {
  const { fence, dns, unwritten, certificate } = state;
  if (fence !== null) return [check('identity', 'failed', fence)];
  return [
    check('identity', 'ok', 'this agent is the only one with its identity'),
    dataplane(state),
    mapServer(state),
    locators(state),
    eids(state),
    ...(dns === undefined
      ? []
      : [dns.listening ? check('dns', 'ok', 'answers') : check('dns', 'failed', 'does not listen yet')]),
    unwritten.length === 0 ? check('state', 'ok', 'on disk') : check('state', 'warning', unwritten.join('; ')),
    certificate === null ? check('certificate', 'ok', 'valid') : check('certificate', 'warning', certificate),
  ];
}

export function dataplaneState(link: DataplaneLink, answers: boolean): DataplaneState {
  const { connected, wasSuperseded: superseded, lastProblem: problem } = link;
  return { connected, superseded, problem, answers };
}

/** Why it is of no use, and what to do, in a line; null when it is. */
export function dataplaneProblem({ connected, superseded, problem, answers }: DataplaneState): string | null {
  if (superseded) return 'another agent controls the data plane: stop one of the two';
  if (!connected) {
    const why = problem ?? 'connecting';
    return `the data plane is not attached (${why}): is stayput-dataplane running, and may this user open its socket?`;
  }
  if (problem !== null) return `the data plane is not configured (${problem})`;
  return answers ? null : 'the data plane is attached, but gives no answer';
}

/** Why nothing is learnt from it, in a line; null when it is. */
export function mapServerProblem({
  mapServer,
  registered,
}: Pick<AgentState, 'mapServer' | 'registered'>): string | null {
  if (!mapServer.connected) {
    return `no session with the map server (${mapServer.problem ?? 'connecting'}); forwarding goes on from the map-cache`;
  }
  return registered ? null : 'the map server has not confirmed the registration yet';
}

function dataplane(state: AgentState): ReadinessCheck {
  const problem = dataplaneProblem(state.dataplane);
  return problem === null ? check('dataplane', 'ok', 'attached, answers') : check('dataplane', 'failed', problem);
}

function mapServer(state: AgentState): ReadinessCheck {
  const problem = mapServerProblem(state);
  return problem === null ? check('map-server', 'ok', 'registered') : check('map-server', 'failed', problem);
}

function locators({ locators: count }: AgentState): ReadinessCheck {
  if (count === 0) return check('locators', 'failed', 'this host has no usable underlay address');
  return check('locators', 'ok', `${count}`);
}

function eids({ eids: own }: AgentState): ReadinessCheck {
  const waiting = own.filter(({ state }) => state === 'base');
  const some = waiting
    .slice(0, NAMED)
    .map(({ eid, problem }) => `${eid}: ${problem ?? 'the map server has not granted it yet'}`);
  if (waiting.length > NAMED) some.push(`and ${waiting.length - NAMED} more`);
  if (waiting.length > 0) return check('eids', 'failed', some.join('; '));
  const lost = own.filter(({ takenOver }) => takenOver).length;
  if (lost > 0) return check('eids', 'warning', `${lost} taken over by another agent: see stayput eid list`);
  return check('eids', 'ok', `${own.filter(({ state }) => state === 'live').length} live`);
}

function check(name: string, status: ReadinessCheck['status'], detail: string): ReadinessCheck {
  return { name, status, detail };
}

/** EIDs that an answer names. */
const NAMED = 5;
