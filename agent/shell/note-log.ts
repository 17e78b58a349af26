/** What the core tells the operator, as lines of the log. */
import { formatPolicyVersion } from '../../proto/policy.ts';
import type { Log } from '../../runtime/log.ts';
import type { Note } from '../core/output.ts';

/** One line at most; what others can cause often is said at debug. */
export function logNote(log: Log, note: Note): void {
  switch (note.type) {
    case 'registration':
      if (note.result === 'accepted') {
        log.debug({ eid: note.eid }, 'registration accepted');
        return;
      }
      log.warn({ eid: note.eid, result: note.result }, REGISTRATION_LOG[note.result]);
      return;
    case 'lisp-registration':
      if (note.result === 'accepted')
        log.info({ server: note.server, count: note.eids }, LISP_REGISTRATION_LOG.accepted);
      else log.warn({ server: note.server, count: note.eids }, LISP_REGISTRATION_LOG[note.result]);
      return;
    case 'rloc':
      if (note.state === 'down') log.warn({ rloc: note.rloc }, 'an RLOC of a site answers no probes any more');
      else log.info({ rloc: note.rloc }, 'an RLOC of a site answers probes');
      return;
    case 'eid-state':
      log.info({ eid: note.eid, state: note.state, generation: note.generation }, 'EID changed its state');
      return;
    case 'locators':
      log.info({ count: note.count }, 'locators changed');
      return;
    case 'handovers':
      log.info({ count: note.micros.length, micros: Math.max(...note.micros) }, 'handover');
      return;
    case 'order':
      log.info({ operation: note.what, eid: note.eid }, 'the map server asks for it');
      return;
    case 'move':
      log.info({ role: note.role, result: note.result }, 'move');
      return;
    case 'peer-message':
      if (note.result === 'refused')
        log.debug({ kind: note.kind }, 'what another agent says of a move is not believed');
      return;
    case 'correspondents':
      log.info({ count: note.count }, 'correspondents of an EID that left were told');
      return;
    case 'peer-revoked':
      log.info({ publicKey: note.publicKey }, 'the map server revoked an agent, its tunnel is ended');
      return;
    case 'mapping-refused':
      log.warn({ reason: note.reason }, 'mapping refused');
      return;
    case 'limit':
      log.debug({ what: note.what }, 'limit reached');
      return;
    case 'overlay':
      log.info({ overlay: note.overlay }, 'overlay prefixes changed');
      return;
    case 'policy':
      log.info(
        { policyVersion: formatPolicyVersion(note.version), default: note.default, rules: note.rules },
        'policy changed',
      );
      return;
    case 'policy-refused':
      log.warn({ reason: note.reason }, 'policy refused, the one before stays');
      return;
    case 'dataplane-superseded':
      log.error('another agent took the data plane over');
      return;
    case 'resolution':
      log.debug({ result: note.result }, 'a question to the map server ended');
      return;
    case 'push':
      log.debug({ count: note.records }, 'the map server pushed changes');
      return;
    case 'lisp':
      log.debug({ result: note.result }, 'message of a LISP router');
      return;
    case 'rloc-probe':
      log.debug({ result: note.result }, 'RLOC-probe ended');
      return;
    case 'peer-refused':
      log.debug({ publicKey: note.publicKey }, 'packets of an agent that may not send them');
      return;
    default:
      note satisfies never;
      return;
  }
}

const REGISTRATION_LOG = {
  lost: 'another agent took an EID over',
  denied: 'the map server does not grant an EID',
  forgotten: 'the map server does not have an EID any more, registering it again',
} as const;

const LISP_REGISTRATION_LOG = {
  accepted: 'EIDs are registered at a Map-Server of others',
  unanswered: 'a Map-Server of others does not confirm EIDs',
  taken: 'somebody else registers EIDs of ours at a Map-Server of others',
} as const;
