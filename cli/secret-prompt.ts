/** Asks at the terminal for what must neither be seen there nor stay in the shell's history. */
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';

/** The line that is typed; empty when the terminal's input ends (Ctrl-D). Ctrl-C ends the program as it does elsewhere. */
export function askSecret(question: string): Promise<string> {
  // A terminal that is read by key press does not show the keys itself; readline would, and puts it back at the end.
  const typing = createInterface({ input: process.stdin, output: unseen(), terminal: true, historySize: 0 });
  process.stderr.write(question);
  return new Promise((resolve) => {
    let [line, interrupted] = ['', false];
    typing.once('line', (text) => {
      line = text;
      typing.close();
    });
    typing.once('SIGINT', () => {
      interrupted = true;
      typing.close();
    });
    typing.once('close', () => {
      process.stderr.write('\n');
      if (interrupted) process.kill(process.pid, 'SIGINT');
      else resolve(line);
    });
  });
}

function unseen(): Writable {
  return new Writable({ write: (_chunk, _encoding, done) => done() });
}
