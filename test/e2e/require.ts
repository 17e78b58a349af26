/** What the end-to-end tests cannot do without. They fail, with one line, and do not skip where it is missing. */
import { missingForTests } from '../../runtime/preflight.ts';

export function requireLab(): void {
  const missing =
    process.getuid?.() === 0
      ? missingForTests()
      : ['the end-to-end tests start sshd and capture packets in network namespaces: run them as root'];
  if (missing.length === 0) return;
  process.stderr.write(`${missing.join('\n')}\n`);
  process.exit(1);
}
