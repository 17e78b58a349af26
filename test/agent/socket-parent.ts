/**
 * A program that holds a UDP and a TCP socket on one port of 127.0.0.1 and hands both to a child, as systemd does for a
 * socket unit: it starts the child when it reads a line, says `port N` at first and `child PID` at each start, and
 * starts it again whenever it ends. It ends with its standard input, and the child with it.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export class SocketParent {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  constructor(argv: readonly string[]) {
    this.#process = spawn('perl', ['-e', PROGRAM, ...argv], { stdio: 'pipe' });
    this.#process.stderr.resume();
    this.#lines = createInterface(this.#process.stdout)[Symbol.asyncIterator]();
  }

  port(): Promise<number> {
    return this.#number('port');
  }

  start(): Promise<number> {
    this.#process.stdin.write('\n');
    return this.child();
  }

  /** The process id of the next child. */
  child(): Promise<number> {
    return this.#number('child');
  }

  async end(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.stdin.end();
    await ended;
  }

  async #number(title: string): Promise<number> {
    const { value = '' } = (await this.#lines.next()) as { value?: string };
    const match = /^(\w+) (\d+)$/.exec(value);
    if (match?.[1] !== title) throw new Error(`"${value}" where ${title} was expected`);
    return Number(match[2]);
  }
}

const PROGRAM = `
use strict; use Socket; use POSIX;
$| = 1; $^F = 16;
POSIX::close($_) for 3 .. 15;
my ($udp, $tcp);
socket($udp, PF_INET, SOCK_DGRAM, 0) && bind($udp, sockaddr_in(0, INADDR_LOOPBACK)) or die $!;
my ($port) = sockaddr_in(getsockname $udp);
socket($tcp, PF_INET, SOCK_STREAM, 0) && bind($tcp, sockaddr_in($port, INADDR_LOOPBACK)) && listen($tcp, 64) or die $!;
print "port $port\\n";
<STDIN>;
my $child = 0;
sub start {
  $child = fork // die $!;
  return print "child $child\\n" if $child;
  POSIX::dup2(POSIX::open('/dev/null'), 0);
  POSIX::dup2(2, 1);
  @ENV{qw(LISTEN_PID LISTEN_FDS)} = ($$, 2);
  exec @ARGV or POSIX::_exit(1);
}
$SIG{CHLD} = sub { start() while waitpid(-1, WNOHANG) > 0 };
start();
1 while !eof(STDIN) || $!{EINTR};
$SIG{CHLD} = 'DEFAULT';
kill 'KILL', $child; waitpid $child, 0;
`;
