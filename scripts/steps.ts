/** What the scripts share: missing tools and failed steps end in plain lines and exit code 1. */
import { StayputError } from '../proto/errors.ts';

export class StepFailed extends StayputError {
  constructor(message: string, options?: ErrorOptions) {
    super('STAYPUT_STEP', message, options);
  }
}

export async function runScript(run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    console.error(error instanceof StayputError ? error.message : error);
    process.exitCode = 1;
  }
}

/** @throws StepFailed with all of the lines */
export function demand(missing: readonly string[]): void {
  if (missing.length > 0) throw new StepFailed(missing.join('\n'));
}
