/**
 * Takes secrets out of texts that leave the machine.
 *
 * Three nets, since none catches all: values that are known to be secret, wherever they appear; values of fields whose
 * name says so; and what has the form of a secret. Public keys and certificates are none.
 */

export class Redaction {
  private readonly known: readonly string[];
  private count = 0;

  /** `known`: secret values; those too short to be one are left out, since they would be found everywhere. */
  constructor(known: Iterable<string>) {
    const values = [...new Set([...known].flatMap(spellings))].filter((value) => value.length >= SHORTEST);
    this.known = values.sort((a, b) => b.length - a.length);
  }

  /** How often something was taken out. */
  get times(): number {
    return this.count;
  }

  text(text: string): string {
    let clean = text;
    for (const secret of this.known) clean = clean.split(secret).join(this.mark(clean.split(secret).length - 1));
    for (const form of FORMS) {
      // Behind the groups, of which there may be one or two, come numbers.
      clean = clean.replace(form, (_all, head: string, tail: unknown) =>
        [head, this.mark(1), typeof tail === 'string' ? tail : ''].join(''),
      );
    }
    return clean;
  }

  /** The same for a value of JSON, with its fields. */
  value(value: unknown): unknown {
    if (typeof value === 'string') return this.text(value);
    if (Array.isArray(value)) return value.map((each) => this.value(each));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => {
        const secret = SECRET_FIELDS.test(key) && !PATHS.test(key) && inner !== null && typeof inner !== 'boolean';
        return [key, secret ? this.mark(1) : this.value(inner)];
      }),
    );
  }

  private mark(times: number): string {
    this.count += times;
    return MARK;
  }
}

/** Keys that are kept as PEM appear in logs as JSON strings too. */
function spellings(value: string): string[] {
  const trimmed = value.trim();
  return [trimmed, JSON.stringify(trimmed).slice(1, -1)];
}

export const MARK = '(redacted)';
const SHORTEST = 6;
const SECRET_FIELDS = /secret|passw|passphrase|token$|private_?key|preshared|psk|authorization|cookie|credential/i;
/** They name a file. */
const PATHS = /file|path|dir$/i;
const FORMS: readonly RegExp[] = [
  /(-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g,
  /(\bstp1\.)[A-Za-z0-9_-]+/g,
  /(\bsecret\s+")[^"]*(")/gi,
  /(\bauthorization:\s*)\S+(?:[ \t]+\S+)?/gi,
  /(\b(?:token|secret|password|passphrase|psk|presharedKey|privateKey)["']?\s*[:=]\s*["']?)[^\s"',}]{6,}/gi,
];
