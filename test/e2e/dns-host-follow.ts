/**
 * How long after a new resolv.conf the agent gives the first answer of the new place. Runs inside a sandbox. Arguments:
 * the address that the new place's resolver has and answers with. Prints milliseconds.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { RESOLV_CONF } from '../../agent/shell/dns-host-facts.ts';
import { askDns } from '../../agent/shell/dns-question.ts';

const [place = ''] = process.argv.slice(2);
writeFileSync(`${RESOLV_CONF}.lease`, `nameserver ${place}\n`);
renameSync(`${RESOLV_CONF}.lease`, RESOLV_CONF);
const known = performance.now();
for (let i = 0; ; i++) {
  const outcome = await askDns(
    { host: '127.0.0.1', port: 53 },
    `f${place.replaceAll('.', 'x')}x${i}.example`,
    'A',
    5000,
  );
  const [answer] = outcome?.answers ?? [];
  if (answer?.type === 'A' && answer.data === place) break;
}
process.stdout.write(`${performance.now() - known}\n`);
