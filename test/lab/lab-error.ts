import { StayputError } from '../../proto/errors.ts';

/** Something in the laboratory itself, or a program run in it, did not do what the story needs. */
export class LabError extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_LAB', message, options);
  }
}
