/** What tshark's dissectors make of LISP packets, as the names and values of their fields in the order of the octets. */
import { execFileSync } from 'node:child_process';

export interface DissectedField {
  readonly name: string;
  readonly value: string;
}

export interface DissectedPacket {
  readonly fields: readonly DissectedField[];
  /** Octets that no dissector read, or that made one give up. */
  readonly rest: boolean;
}

/** Of the LISP layers and what they encapsulate; one for each packet of the capture. */
export function dissect(capture: string): DissectedPacket[] {
  const arguments_ = ['-n', '-r', capture, '-T', 'pdml', '-J', 'lisp lisp-data ip ipv6 udp data'];
  const pdml = execFileSync('tshark', arguments_, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return pdml.split('<packet>').slice(1).map(packetOf);
}

function packetOf(text: string): DissectedPacket {
  // Before the first LISP layer stand those around it.
  const lisp = text.slice(Math.max(0, text.search(/<proto name="lisp/)));
  const fields: DissectedField[] = [];
  for (const [, attributes = ''] of lisp.matchAll(/<field ([^>]*?)\/?>/g)) {
    const of = (name: string): string => new RegExp(`(?:^| )${name}="([^"]*)"`).exec(attributes)?.[1] ?? '';
    const name = of('name').replaceAll('_', '.');
    // Fields without a value of their own show nothing, but have the octets.
    if (/^(lisp|ip|udp)/.test(name)) fields.push({ name, value: of('show') || of('value') });
  }
  return { fields, rest: /<proto name="(data|fake-field-wrapper|_ws.malformed)"/.test(lisp) };
}
