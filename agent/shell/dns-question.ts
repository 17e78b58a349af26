/** One DNS question to one server, as a client asks it: to see whether a server answers, and what. */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { type Answer, type DecodedPacket, decode, encode, type RecordType } from 'dns-packet';
import type { Millis } from '../../proto/time.ts';

export interface DnsOutcome {
  readonly rcode: string;
  /** As dns-packet gives them. */
  readonly answers: readonly Answer[];
  readonly ms: Millis;
}

/** Over UDP, once. Null when no answer to it comes in time, or none that can be read. */
export function askDns(
  server: { readonly host: string; readonly port: number },
  name: string,
  type: RecordType,
  timeout: Millis,
): Promise<DnsOutcome | null> {
  const id = randomInt(0x10000);
  const question = encode({ type: 'query', id, flags: RECURSION_DESIRED, questions: [{ name, type }] });
  const begun = performance.now();
  return new Promise((resolve) => {
    const socket = createSocket(server.host.includes(':') ? 'udp6' : 'udp4');
    const end = (outcome: DnsOutcome | null): void => {
      clearTimeout(timer);
      socket.removeAllListeners();
      socket.close();
      resolve(outcome);
    };
    const timer = setTimeout(() => end(null), timeout);
    socket.on('error', () => end(null));
    socket.on('message', (packet) => {
      const answer = decoded(packet);
      if (answer === null || answer.id !== id || answer.type !== 'response') return;
      // In no typing, but in every decoded packet.
      const { rcode } = answer as unknown as { rcode: string };
      end({ rcode, answers: answer.answers ?? [], ms: performance.now() - begun });
    });
    // The typings have no error here, Node passes one (e.g. ENETUNREACH).
    socket.connect(server.port, server.host, (error?: Error) => {
      if (error) end(null);
      else socket.send(question);
    });
  });
}

function decoded(packet: Buffer): DecodedPacket | null {
  try {
    return decode(packet);
  } catch {
    return null;
  }
}

const RECURSION_DESIRED = 0x0100;
