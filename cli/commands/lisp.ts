/** LISP on the wire, for people who look at captures. */
import { readFileSync, statSync } from 'node:fs';
import { text as textOf } from 'node:stream/consumers';
import type { Command } from 'commander';
import { DecodeError, UsageError } from '../../proto/errors.ts';
import { type CapturedFrame, readCapture } from '../lisp/capture-file.ts';
import { type Dissection, dissectControl, dissectData, isSound, portMeaning } from '../lisp/dissection.ts';
import { dissectionJson } from '../lisp/dissection-json.ts';
import { dissectionItem } from '../lisp/dissection-text.ts';
import { ipPacketOf, udpDatagramOf } from '../lisp/link-layer.ts';
import { linesOf } from '../lisp/text-tree.ts';
import { printJson, printLines } from '../output.ts';

interface DecodeOptions {
  readonly pcap?: string;
  readonly data?: boolean;
  readonly keyFile?: string;
  readonly json?: boolean;
}

export function registerLispCommands(program: Command): void {
  const lisp = program.command('lisp').description('LISP messages of any implementation');
  lisp
    .command('decode')
    .description('Say what is in LISP messages, given in hex or as a capture')
    .argument('[hex...]', 'the octets behind the UDP header; "-": standard input, a message for each line')
    .option('--pcap <file>', 'a capture, pcap or pcapng ("-": standard input): what is on UDP 4342 and 4341')
    .option('--data', 'the hex is a data packet (UDP 4341), not a control message')
    .option('--key-file <file>', 'file with the key of a site, to check the authentication')
    .option('--json', 'print JSON')
    .action(async (hex: readonly string[], options: DecodeOptions) => {
      const psk = options.keyFile === undefined ? null : keyIn(options.keyFile);
      const found = options.pcap === undefined ? await inHex(hex, options, psk) : await inCapture(hex, options, psk);
      if (options.json === true)
        printJson(found.map(({ about, dissection }) => ({ ...about, ...dissectionJson(dissection) })));
      else for (const { title, dissection } of found) printLines(...title, ...linesOf(dissectionItem(dissection)));
      if (!found.every(({ dissection }) => isSound(dissection))) process.exitCode = 1;
    });
}

interface Found {
  /** For people: lines before it. */
  readonly title: readonly string[];
  /** For JSON. */
  readonly about: Readonly<Record<string, unknown>>;
  readonly dissection: Dissection;
}

async function inHex(words: readonly string[], options: DecodeOptions, psk: Uint8Array | null): Promise<Found[]> {
  if (words.length === 0) throw new UsageError('give a message in hex, - for standard input, or --pcap FILE');
  const fromStdin = words.length === 1 && words[0] === '-';
  const messages = fromStdin ? (await textOf(process.stdin)).split('\n') : [words.join(' ')];
  const kept = messages.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
  if (kept.length === 0) throw new UsageError('there is no message');
  const dissect = options.data === true ? dissectData : dissectControl;
  return kept.map((line) => ({ title: [], about: {}, dissection: dissect(octetsOf(line), psk) }));
}

async function inCapture(words: readonly string[], options: DecodeOptions, psk: Uint8Array | null): Promise<Found[]> {
  if (words.length > 0 || options.data === true) throw new UsageError('--pcap stands alone: no hex and no --data');
  const found: Found[] = [];
  const skipped = { fragments: 0, cut: 0, unreadable: 0, others: 0 };
  try {
    for (const frame of readCapture(await contentOf(options.pcap ?? '-'))) {
      const result = inFrame(frame, psk);
      if (typeof result === 'string') skipped[result]++;
      else found.push(result);
    }
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    if (found.length === 0) throw new UsageError(`${options.pcap}: ${error.message}`, { cause: error });
    process.stderr.write(`stayput: ${options.pcap}: ${error.message}; what precedes it follows\n`);
    process.exitCode = 1;
  }
  if (skipped.fragments > 0) process.stderr.write(`stayput: ${skipped.fragments} IP fragments left out\n`);
  if (skipped.cut > 0) process.stderr.write(`stayput: ${skipped.cut} frames left out that the capture cut short\n`);
  if (skipped.unreadable > 0) process.stderr.write(`stayput: ${skipped.unreadable} unreadable frames left out\n`);
  if (found.length === 0) process.stderr.write(`stayput: nothing on UDP 4341 or 4342 in ${skipped.others} frames\n`);
  return found;
}

function inFrame({ number, time, linkType, bytes, cut }: CapturedFrame, psk: Uint8Array | null): Found | keyof Skipped {
  try {
    const ip = ipPacketOf(linkType, bytes);
    if (ip === null) return 'others';
    if (ip.fragment) return 'fragments';
    const datagram = udpDatagramOf(ip);
    const meaning = datagram === null ? null : portMeaning(datagram);
    if (datagram === null || meaning === null) return 'others';
    const from = { address: ip.source, port: datagram.sourcePort };
    const to = { address: ip.destination, port: datagram.destinationPort };
    const date = time === null ? null : dateOf(time);
    const route = `${from.address} port ${from.port} > ${to.address} port ${to.port}`;
    return {
      title: [`frame ${number}${date === null ? '' : `, ${date}`}, ${route}`],
      about: { frame: number, ...(date === null ? {} : { time: date }), from, to },
      dissection: meaning === 'control' ? dissectControl(datagram.payload, psk) : dissectData(datagram.payload, psk),
    };
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    if (error.field === 'link type') throw error;
    return cut ? 'cut' : 'unreadable';
  }
}

/** With microseconds; what no calendar has is left as it is. */
function dateOf(time: number): string {
  const date = new Date(Math.floor(time / 1000));
  if (Number.isNaN(date.getTime())) return `${time} µs`;
  return date.toISOString().replace('Z', `${String(time % 1000).padStart(3, '0')}Z`);
}

interface Skipped {
  readonly fragments: number;
  /** The capture has only the start of the frame. */
  readonly cut: number;
  readonly unreadable: number;
  readonly others: number;
}

/** Spaces, colons, dots, dashes and `0x` may stand between octets. */
function octetsOf(text: string): Uint8Array {
  const digits = text.replace(/0x/gi, '').replace(/[\s:.,-]+/g, '');
  if (!/^([0-9a-f]{2})*$/i.test(digits)) {
    const wrong = /[^0-9a-f]/i.exec(digits)?.[0];
    throw new UsageError(wrong === undefined ? 'an odd number of hex digits' : `"${wrong}" is not a hex digit`);
  }
  return Uint8Array.from(Buffer.from(digits, 'hex'));
}

async function contentOf(file: string): Promise<Uint8Array> {
  if (file !== '-') {
    const size = fileResult(file, () => statSync(file).size);
    if (size > MAX_CAPTURE) throw new UsageError(`${file}: more than ${MAX_CAPTURE >> 20} MiB; cut it (editcap)`);
    return fileResult(file, () => readFileSync(file));
  }
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_CAPTURE) throw new UsageError(`standard input: more than ${MAX_CAPTURE >> 20} MiB`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Without the end of its line, which editors add. */
function keyIn(file: string): Uint8Array {
  const key = fileResult(file, () => readFileSync(file));
  const end = key.at(-1) === 0x0a ? (key.at(-2) === 0x0d ? -2 : -1) : key.length;
  if (key.length === 0) throw new UsageError(`${file}: is empty`);
  return key.subarray(0, end);
}

function fileResult<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new UsageError(`${file}: ${(cause as Error).message}`, { cause });
  }
}

const MAX_CAPTURE = 1 << 30;
