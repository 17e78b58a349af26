/**
 * Damaged inputs: a proper one with some octets, tokens or parts changed, from a seed, so that each run can be repeated.
 *
 * Millions of them are made in a row: they are changed in place, in one piece of memory, as octets also where they are
 * text.
 */

/** A whole number from 0 to below `below`. */
export type Random = (below: number) => number;

/** What an input is made of: it decides which changes are likely to get past the first check. */
export type Form = 'octets' | 'text' | 'json';

/** xorshift32. */
export function seeded(seed: number): Random {
  let state = Math.imul(seed, 0x9e3779b1) >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

export class Mutator {
  readonly #form: Form;
  readonly #random: Random;
  readonly #bytes = new Uint8Array(MAX_SIZE);
  #length = 0;

  constructor(form: Form, random: Random) {
    this.#form = form;
    this.#random = random;
  }

  /** One of `pool` with one to four changes; now and then what was never proper. It is there until the next call. */
  next(pool: readonly Uint8Array[]): Uint8Array {
    const random = this.#random;
    this.#length = 0;
    if (random(50) === 0) {
      this.#makeNoise();
    } else {
      const original = pick(pool, random);
      this.#put(0, 0, original, 0, original.length);
      for (let changes = 1 + random(4); changes > 0; changes--) {
        const other = pick(pool, random);
        // Octets changed inside JSON are mostly no JSON any more, which is one thing to try of many.
        if (this.#form === 'json' && random(8) !== 0) this.#changeToken(other);
        else this.#changeOctets(other);
      }
    }
    return this.#bytes.subarray(0, this.#length);
  }

  #makeNoise(): void {
    const random = this.#random;
    const length = random(300);
    if (this.#form === 'octets') {
      for (let at = 0; at < length; at++) this.#bytes[at] = random(3) === 0 ? 0 : random(256);
      this.#length = length;
      return;
    }
    const words = this.#form === 'json' ? JSON_TOKENS : TEXT_PARTS;
    for (let count = length >> 3; count > 0; count--) this.#putAll(this.#length, 0, pick(words, random));
  }

  #changeOctets(other: Uint8Array): void {
    const random = this.#random;
    const at = random(this.#length + 1);
    switch (random(8)) {
      case 0:
        this.#length = at;
        break;
      case 1:
        this.#remove(at, random(6));
        break;
      case 2: {
        const from = random(other.length + 1);
        this.#put(at, random(3) === 0 ? random(40) : 0, other, from, from + random(40));
        break;
      }
      case 3:
        this.#repeat(at, at + 1 + random(30));
        break;
      case 4: {
        const part = pick(this.#form === 'octets' ? LIMITS : TEXT_PARTS, random);
        this.#putAll(at, random(2) === 0 ? part.length : 0, part);
        break;
      }
      default:
        if (at < this.#length) this.#bytes[at] = random(2) === 0 ? this.#at(at) ^ (1 << random(8)) : random(256);
    }
  }

  /** A token, or a part from an opening bracket on, becomes another one; a string is changed inside. */
  #changeToken(other: Uint8Array): void {
    const random = this.#random;
    const from = tokenFrom(this.#bytes, this.#length, random(this.#length || 1));
    if (from === this.#length) {
      this.#length = 0;
      this.#putAll(0, 0, pick(JSON_TOKENS, random));
      return;
    }
    const to = tokenEnd(this.#bytes, this.#length, from);
    switch (random(6)) {
      case 0:
        this.#putAll(from, to - from, pick(JSON_TOKENS, random));
        break;
      case 1: {
        const start = tokenFrom(other, other.length, random(other.length || 1));
        this.#put(from, to - from, other, start, tokenEnd(other, other.length, start));
        break;
      }
      case 2: {
        // A whole member or element goes, or comes twice.
        let comma = to;
        while (comma < this.#length && this.#bytes[comma] !== COMMA) comma++;
        if (comma === this.#length) this.#remove(from, to - from);
        else if (random(2) === 0) this.#remove(from, comma + 1 - from);
        else this.#repeat(from, comma + 1);
        break;
      }
      case 3:
        this.#putAll(to, 0, pick(CLOSING, random));
        this.#putAll(from, 0, pick(OPENING, random));
        break;
      default: {
        const at = from + 1 + random(to - from - 1 || 1);
        if (this.#bytes[from] === QUOTE) this.#putAll(at, random(2), pick(TEXT_PARTS, random));
        else this.#putAll(from, to - from, pick(NUMBERS, random));
      }
    }
  }

  #at(at: number): number {
    return this.#bytes[at] as number;
  }

  #remove(at: number, count: number): void {
    this.#put(at, count, EMPTY, 0, 0);
  }

  /** What is from `from` to `to` comes twice. */
  #repeat(from: number, to: number): void {
    const end = Math.min(to, this.#length);
    this.#put(end, 0, this.#bytes.slice(from, end), 0, end - from);
  }

  #putAll(at: number, removed: number, part: Uint8Array): void {
    this.#put(at, removed, part, 0, part.length);
  }

  /** `part` from `from` to `to` comes in the place of `removed` octets; what becomes too long is cut. */
  #put(at: number, removed: number, part: Uint8Array, from: number, to: number): void {
    const bytes = this.#bytes;
    const rest = Math.min(at + removed, this.#length);
    const added = Math.min(to, part.length, from + MAX_SIZE - at) - from;
    if (at + added !== rest) bytes.copyWithin(at + added, rest, this.#length);
    for (let i = 0; i < added; i++) bytes[at + i] = part[from + i] as number;
    this.#length = Math.min(this.#length - (rest - at) + added, MAX_SIZE);
  }
}

/** Where the first token at or behind `at` begins; inside a string it is another one than a parser would see. */
function tokenFrom(bytes: Uint8Array, length: number, at: number): number {
  let from = at;
  while (from < length && KINDS[bytes[from] as number] === 0) from++;
  return from;
}

function tokenEnd(bytes: Uint8Array, length: number, from: number): number {
  const kind = KINDS[bytes[from] as number];
  let end = from + 1;
  if (kind === WORD) {
    while (end < length && KINDS[bytes[end] as number] === WORD) end++;
  } else if (kind === STRING) {
    while (end < length && bytes[end] !== QUOTE) end += bytes[end] === BACKSLASH ? 2 : 1;
    end++;
  }
  return Math.min(end, length);
}

function pick<T>(list: readonly T[], random: Random): T {
  return list[random(list.length)] as T;
}

function octets(texts: readonly string[]): readonly Uint8Array[] {
  return texts.map((text) => Uint8Array.from(Buffer.from(text)));
}

const EMPTY = new Uint8Array(0);
const MAX_SIZE = 8192;
const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];

/** Of each octet, what token of JSON it may begin or, in a number or a name, go on with. */
const [BRACKET, STRING, WORD] = [1, 2, 3];
const KINDS = Uint8Array.from({ length: 256 }, (_, octet) => {
  const character = String.fromCharCode(octet);
  if ('[]{}'.includes(character)) return BRACKET;
  if (character === '"') return STRING;
  return /[-+.\da-zA-Z]/.test(character) ? WORD : 0;
});

/** Counts and lengths as the formats have them, at a limit. */
const LIMITS = [1, 2, 4].flatMap((size) =>
  [0, 1, 2, 0x7f, 0x80, 0xff].flatMap((value) =>
    [0, 0xff].map((rest) => Uint8Array.from({ length: size }, (_, i) => (i === size - 1 ? value : rest))),
  ),
);
const NUMBER_TEXTS = [
  ...[0, -1, 1, 1.5, -0.5, 255, 256, 65_535, 65_536],
  ...[2 ** 31, 2 ** 32, 2 ** 53, 2 ** 53 + 2, 1e21, 1e308],
].map(String);
const NUMBERS = octets(NUMBER_TEXTS);
const DEPTHS = Array.from({ length: 20 }, (_, at) => at + 1);
const OPENING = octets(DEPTHS.map((depth) => '['.repeat(depth)));
const CLOSING = octets(DEPTHS.map((depth) => ']'.repeat(depth)));
const JSON_TOKENS = octets([
  ...NUMBER_TEXTS,
  ...['1e999', '-0', 'null', 'true', 'false', '""', '[]', '{}', '"a"', '","', ':', ',', '[', '{', ']', '}'],
  ...['"__proto__"', '{"__proto__":{"x":1}}', '"constructor"', '"\\u0000"', '"\\ud800"', '"10.77.0.0/16"', '"::"'],
  ...['"drop"', '"*"', `"${'a'.repeat(300)}"`, '" "', '"1"', '[[]]', '[null]'],
]);
const TEXT_PARTS = octets([
  ...['0', '1', '9', '255', '256', '65535', '65536', '00', '-1', '.', '..', ':', '::', '/', '/0', '/32', '/129'],
  ...['%', '@', '*', '*.', '-', '_', ' ', '\t', '\n', '\r\n', '\0', '"', '\\', '[', ']', '=', ',', ';', '#', '&'],
  ...['<', '>', '<!--', 'ffff', '1.2.3.4', 'a', 'Z', 'ß', 'é', '\u202e', '\ufeff', '\ud83d\ude00', 'xn--'],
  ...['::ffff:1.2.3.4', 'fd77::'],
]);
