/** Damaged inputs: a proper one with some octets, tokens or parts changed, from a seed, so that each run can be repeated. */

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
    state >>>= 0;
    return state % below;
  };
}

/** One of `pool` with one to four changes; now and then something that was never proper. */
export function mutated(pool: readonly Uint8Array[], form: Form, random: Random): Uint8Array {
  if (random(50) === 0) return noise(form, random);
  let bytes = pool[random(pool.length)] ?? new Uint8Array(0);
  for (let changes = 1 + random(4); changes > 0; changes--) {
    const other = pool[random(pool.length)] ?? bytes;
    // Octets changed inside JSON are mostly no JSON any more, which is one thing to try of many.
    const whole = form === 'json' && random(8) !== 0;
    bytes = whole ? changeToken(bytes, other, random) : changeOctets(bytes, other, form, random);
    if (bytes.length > MAX_SIZE) bytes = bytes.subarray(0, MAX_SIZE);
  }
  return bytes;
}

function noise(form: Form, random: Random): Uint8Array {
  const length = random(300);
  if (form === 'octets') return Uint8Array.from({ length }, () => (random(3) === 0 ? 0 : random(256)));
  const words = Array.from({ length: length / 8 }, () => pick(form === 'json' ? JSON_TOKENS : TEXT_PARTS, random));
  return Buffer.from(words.join(''));
}

function changeOctets(bytes: Uint8Array, other: Uint8Array, form: Form, random: Random): Uint8Array {
  const at = random(bytes.length + 1);
  switch (random(8)) {
    case 0:
      return bytes.subarray(0, at);
    case 1:
      return spliced(bytes, at, random(6), EMPTY);
    case 2: {
      const from = random(other.length + 1);
      return spliced(bytes, at, random(3) === 0 ? random(40) : 0, other.subarray(from, from + random(40)));
    }
    case 3:
      return spliced(bytes, at, 0, bytes.subarray(at, at + 1 + random(30)));
    case 4: {
      const part = form === 'octets' ? numberOctets(random) : Buffer.from(pick(TEXT_PARTS, random));
      return spliced(bytes, at, random(2) === 0 ? part.length : 0, part);
    }
    default: {
      if (at === bytes.length) return bytes;
      const changed = Uint8Array.from(bytes);
      changed[at] = random(2) === 0 ? (changed[at] ?? 0) ^ (1 << random(8)) : random(256);
      return changed;
    }
  }
}

/** A count or a length as the formats have them, at a limit. */
function numberOctets(random: Random): Uint8Array {
  const size = pick([1, 2, 4], random);
  const value = pick([0, 1, 2, 0x7f, 0x80, 0xff], random);
  const rest = pick([0, 0xff], random);
  return Uint8Array.from({ length: size }, (_, i) => (i === size - 1 ? value : rest));
}

/** A token, or a part from an opening bracket on, becomes another one; a string is changed inside. */
function changeToken(bytes: Uint8Array, other: Uint8Array, random: Random): Uint8Array {
  const text = textOf(bytes);
  const token = tokenBehind(text, random);
  if (token === null) return Buffer.from(pick(JSON_TOKENS, random));
  const [word] = token;
  const end = token.index + word.length;
  const replaced = (by: string, from = token.index, to = end): Uint8Array =>
    Buffer.from(text.slice(0, from) + by + text.slice(to));
  switch (random(6)) {
    case 0:
      return replaced(pick(JSON_TOKENS, random));
    case 1:
      return replaced(tokenBehind(textOf(other), random)?.[0] ?? 'null');
    case 2: {
      // A whole member or element goes, or comes twice.
      const comma = text.indexOf(',', end);
      if (comma < 0) return replaced('');
      return random(2) === 0
        ? replaced('', token.index, comma + 1)
        : replaced(text.slice(token.index, comma + 1).repeat(2), token.index, comma + 1);
    }
    case 3:
      return replaced(`${'['.repeat(1 + random(20))}${word}${']'.repeat(1 + random(20))}`);
    default: {
      if (!word.startsWith('"')) return replaced(String(pick(NUMBERS, random)));
      const at = token.index + 1 + random(word.length - 1);
      return replaced(pick(TEXT_PARTS, random), at, at + random(2));
    }
  }
}

/** The first from some place on; inside a string it is another one than a parser would see. */
function tokenBehind(text: string, random: Random): RegExpExecArray | null {
  TOKEN.lastIndex = random(text.length || 1);
  return TOKEN.exec(text);
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');
}

function spliced(bytes: Uint8Array, at: number, removed: number, put: Uint8Array): Uint8Array {
  const rest = bytes.subarray(at + removed);
  const result = new Uint8Array(at + put.length + rest.length);
  result.set(bytes.subarray(0, at));
  result.set(put, at);
  result.set(rest, at + put.length);
  return result;
}

function pick<T>(list: readonly T[], random: Random): T {
  return list[random(list.length)] as T;
}

const EMPTY = new Uint8Array(0);
const MAX_SIZE = 8192;
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[[\]{}]/g;
const NUMBERS = [0, -1, 1, 1.5, -0.5, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 53 + 2, 1e21, 1e308];
const JSON_TOKENS = [
  ...NUMBERS.map(String),
  ...['1e999', '-0', 'null', 'true', 'false', '""', '[]', '{}', '"a"', '","', ':', ',', '[', '{', ']', '}'],
  ...['"__proto__"', '{"__proto__":{"x":1}}', '"constructor"', '"\\u0000"', '"\\ud800"', '"10.77.0.0/16"', '"::"'],
  ...['"drop"', '"*"', `"${'a'.repeat(300)}"`, '" "', '"1"', '[[]]', '[null]'],
];
const TEXT_PARTS = [
  ...[
    '0',
    '1',
    '9',
    '255',
    '256',
    '65535',
    '65536',
    '00',
    '-1',
    '.',
    '..',
    ':',
    '::',
    '/',
    '/0',
    '/32',
    '/129',
    '%',
    '@',
  ],
  ...[
    '*',
    '*.',
    '-',
    '_',
    ' ',
    '\t',
    '\n',
    '\r\n',
    '\0',
    '"',
    '\\',
    '[',
    ']',
    '=',
    ',',
    ';',
    '#',
    '&',
    '<',
    '>',
    '<!--',
  ],
  ...['ffff', '1.2.3.4', 'a', 'Z', 'ß', 'é', '\u202e', '\ufeff', '\ud83d\ude00', 'xn--', '::ffff:1.2.3.4', 'fd77::'],
];
