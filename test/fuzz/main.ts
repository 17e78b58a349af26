/**
 * `npm run fuzz -- [--executions N] [--seed N] [--keep] [DECODER ...]`: a long run of the decoders, one after the other,
 * with a line for each. `--keep` adds what was found to the corpora. An input that breaks a promise is added always.
 */
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { campaign, corpus, corpusFile, type Report } from './campaign.ts';
import type { Decoder } from './decoder.ts';
import { DECODERS } from './decoders.ts';

const MAX_CORPUS = 40;
const MAX_KEPT_SIZE = 200;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    executions: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    keep: { type: 'boolean', default: false },
  },
});
const executions = Number(values.executions.replaceAll('_', ''));
const seed = Number(values.seed);
const unknown = positionals.filter((name) => !DECODERS.some((decoder) => decoder.name === name));
if (unknown.length > 0 || !(executions > 0) || !Number.isSafeInteger(seed)) {
  console.error(`usage: npm run fuzz -- [--executions N] [--seed N] [--keep] [DECODER ...]\nDECODER is one of:`);
  for (const { name } of DECODERS) console.error(`  ${name}`);
  process.exit(2);
}
console.log('| decoder | executions | outcomes | per second | slowest, ms | findings |');
console.log('| --- | ---: | ---: | ---: | ---: | ---: |');
for (const decoder of DECODERS) {
  if (positionals.length > 0 && !positionals.includes(decoder.name)) continue;
  const report = campaign(decoder, { executions, seed });
  console.log(line(report));
  if (values.keep) keep(decoder, report);
  if (report.failure === undefined) continue;
  const { input, error } = report.failure;
  console.error(error);
  appendFileSync(corpusFile(decoder.name), `# once: ${oneLine(error)}\n${Buffer.from(input).toString('base64')}\n`);
  process.exitCode = 1;
}

function line({ decoder, executions: count, outcomes, seconds, slowestMs, failure }: Report): string {
  const perSecond = Math.round(count / seconds).toLocaleString('en');
  const findings = failure === undefined ? 0 : 1;
  return `| \`${decoder}\` | ${count.toLocaleString('en')} | ${outcomes} | ${perSecond} | ${slowestMs.toFixed(0)} | ${findings} |`;
}

/** The short ones, until the corpus is large enough. */
function keep(decoder: Decoder, { found }: Report): void {
  const room = Math.max(0, MAX_CORPUS - corpus(decoder).length);
  const short = found.filter(({ length }) => length > 0 && length <= MAX_KEPT_SIZE).slice(0, room);
  if (short.length === 0) return;
  appendFileSync(
    corpusFile(decoder.name),
    `${short.map((input) => Buffer.from(input).toString('base64')).join('\n')}\n`,
  );
}

function oneLine(error: unknown): string {
  return String(error).replace(/\s+/g, ' ').slice(0, 160);
}
