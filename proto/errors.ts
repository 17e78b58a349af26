/**
 * The root of every error that Stayput raises on purpose.
 *
 * `code` is stable and machine readable (`STAYPUT_…`); `message` says what was wrong, where, and
 * what to do about it. Subclasses live where they are thrown.
 */
export class StayputError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

/** Bytes or text from outside do not have the form that their format demands. */
export class DecodeError extends StayputError {
  /** Octets from the start of the input at which decoding failed; 0 for text. */
  readonly offset: number;
  /** The field being read, in the words of the specification. */
  readonly field: string;

  constructor(field: string, offset: number, problem: string, options?: ErrorOptions) {
    super('STAYPUT_DECODE', `${field} at offset ${offset}: ${problem}`, options);
    this.offset = offset;
    this.field = field;
  }
}

/** What a person typed or configured is wrong. Shown as one line without a stack; exit code 2. */
export class UsageError extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_USAGE', message, options);
  }
}
