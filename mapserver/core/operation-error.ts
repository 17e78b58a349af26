/** Why an operation of an administrator or of a joining agent is refused. */
import { StayputError } from '../../proto/errors.ts';

export type OperationCode =
  | 'STAYPUT_TOKEN_UNKNOWN'
  | 'STAYPUT_TOKEN_SPENT'
  | 'STAYPUT_TOKEN_EXPIRED'
  | 'STAYPUT_TOKEN_REVOKED'
  | 'STAYPUT_TOO_MANY'
  | 'STAYPUT_NOT_GRANTED'
  | 'STAYPUT_OUTSIDE_OVERLAY'
  | 'STAYPUT_POOL_EMPTY'
  | 'STAYPUT_ALREADY_ENROLLED'
  | 'STAYPUT_AGENT_REVOKED'
  | 'STAYPUT_AGENT_UNKNOWN'
  | 'STAYPUT_POLICY_TEXT'
  | 'STAYPUT_POLICY_TEST'
  | 'STAYPUT_POLICY_TOO_LARGE'
  | 'STAYPUT_POLICY_CHANGED'
  | 'STAYPUT_NO_POLICY'
  | 'STAYPUT_NAME_UNKNOWN'
  | 'STAYPUT_NAME_CHANGED'
  | 'STAYPUT_NAME_RECORDS'
  | 'STAYPUT_SITE'
  | 'STAYPUT_SITE_UNKNOWN'
  | 'STAYPUT_STORE';

export class OperationError extends StayputError {
  override readonly code: OperationCode;

  constructor(code: OperationCode, message: string) {
    super(code, message);
    this.code = code;
  }
}
