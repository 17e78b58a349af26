/** `node dist/scripts/preflight.js [packages]`: what the tests miss on this machine, or the Debian packages they use. */
import { debianPackages, missingForTests } from '../runtime/preflight.ts';

if (process.argv[2] === 'packages') {
  console.log(debianPackages().join(' '));
} else {
  const missing = missingForTests();
  for (const line of missing) console.error(line);
  process.exitCode = missing.length === 0 ? 0 : 1;
}
