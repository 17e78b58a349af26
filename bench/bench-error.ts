import { StayputError } from '../proto/errors.ts';

/** A system could not be set up, or a measuring program gave no figure. */
export class BenchError extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_BENCH', message, options);
  }
}
