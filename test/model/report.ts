/** What a person needs of a failed schedule: the violation, the schedule, and what happened in it. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { explain } from './run.ts';
import type { Schedule } from './transitions.ts';

export const CORPUS = join(PROJECT_ROOT, 'test', 'corpus', 'model');

/** Also a new file of the corpus, if STAYPUT_MODEL_SAVE says how to call it. */
export function report(schedule: Schedule, error: unknown): string {
  const { flow } = explain(schedule);
  const json = JSON.stringify(schedule);
  if (process.env.STAYPUT_MODEL_SAVE !== undefined) {
    mkdirSync(CORPUS, { recursive: true });
    const entry = { why: (error as Error).message, ...schedule };
    writeFileSync(join(CORPUS, `${process.env.STAYPUT_MODEL_SAVE}.json`), `${JSON.stringify(entry, null, 2)}\n`);
  }
  return `${(error as Error).stack}\n\nschedule:\n${json}\n\nflow:\n${flow.text(400)}\n`;
}
