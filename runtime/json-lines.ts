/** In which line of a JSON text each value stands, so that what is wrong with it can be found. */

/** By the path of the value, as `dns.zones.0.zone`; the text must be valid JSON. */
export function linesOfValues(text: string): ReadonlyMap<string, number> {
  const lines = new Map<string, number>();
  let at = 0;
  let line = 1;

  const skipSpace = (): void => {
    for (; at < text.length && /\s/.test(text[at] ?? ''); at++) if (text[at] === '\n') line++;
  };
  const readString = (): string => {
    const start = at++;
    while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    at++;
    return JSON.parse(text.slice(start, at)) as string;
  };
  const readMembers = (path: string | null, end: string, keyed: boolean): void => {
    at++;
    for (let index = 0; ; index++) {
      skipSpace();
      if (text[at] === end) break;
      const key = keyed ? readString() : String(index);
      const inner = path === null ? key : `${path}.${key}`;
      lines.set(inner, line);
      if (keyed) {
        skipSpace();
        at++;
      }
      readValue(inner);
      skipSpace();
      if (text[at] === ',') at++;
    }
    at++;
  };
  const readValue = (path: string | null): void => {
    skipSpace();
    if (text[at] === '{') readMembers(path, '}', true);
    else if (text[at] === '[') readMembers(path, ']', false);
    else if (text[at] === '"') readString();
    else while (at < text.length && !/[\s,\]}]/.test(text[at] ?? '')) at++;
  };

  readValue(null);
  return lines;
}

/** From 1. */
export function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}
