/** What a fuzz target promises, and how its outcomes are told apart. */
import { StayputError } from '../../proto/errors.ts';
import type { Form } from './mutation.ts';

export interface Decoder {
  /** Also the name of its corpus, `test/corpus/fuzz/NAME.txt`. */
  readonly name: string;
  readonly form: Form;
  /** Proper inputs. */
  readonly seeds: readonly Uint8Array[];
  /**
   * Decodes, and holds the result against what is promised of it. The text that is returned differs for inputs that
   * took different ways; those are worth further changes. @throws whatever must not have happened
   */
  readonly run: (input: Uint8Array) => string;
  /** Each execution costs a signature or the like. */
  readonly slow?: true;
}

type ErrorClass = new (...args: never[]) => StayputError;

/** The outcome of `decode`, or of its refusal, which must be one of `refusals`. */
export function outcome(refusals: readonly ErrorClass[], decode: () => unknown): string {
  let value: unknown;
  try {
    value = decode();
  } catch (error) {
    if (!(error instanceof StayputError) || !refusals.some((kind) => error instanceof kind)) throw error;
    return `${error.code} ${error.message.slice(0, 200).replace(QUOTED, '')}`;
  }
  return shape(value, 0);
}

export function textOf(input: Uint8Array): string {
  return Buffer.from(input.buffer, input.byteOffset, input.length).toString('utf8');
}

export function octetsOf(...texts: readonly string[]): readonly Uint8Array[] {
  return texts.map((text) => Buffer.from(text));
}

export function jsonOf(...values: readonly unknown[]): readonly Uint8Array[] {
  return values.map((value) => Buffer.from(JSON.stringify(value)));
}

/** The members there are and how many, not what they say. */
function shape(value: unknown, depth: number): string {
  if (typeof value !== 'object' || value === null || depth > 4) return typeof value;
  if (ArrayBuffer.isView(value)) return 'octets';
  if (Array.isArray(value)) return `[${Math.min(value.length, 3)}${shape(value[0], depth + 1)}]`;
  let text = '{';
  for (const [name, member] of Object.entries(value)) {
    text += name.slice(0, 20);
    text += name === 'type' || name === 'kind' ? String(member).slice(0, 30) : shape(member, depth + 1);
  }
  return text;
}

/** What an error repeats of its input would make each of them a new one. */
const QUOTED = /\(.*|".*"|'.*'|[\d.:]+|[^\x20-\x7e]+/gs;
