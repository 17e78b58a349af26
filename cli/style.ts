/** Colour for people: on a terminal only, and not where NO_COLOR is set (https://no-color.org). */

export interface Style {
  good(text: string): string;
  bad(text: string): string;
  weak(text: string): string;
}

export function styleOf(stream: NodeJS.WriteStream, environment: NodeJS.ProcessEnv = process.env): Style {
  const wanted = stream.isTTY === true && (environment.NO_COLOR ?? '') === '' && environment.TERM !== 'dumb';
  const paint = (code: number) => (text: string) => (wanted ? `\u001b[${code}m${text}\u001b[0m` : text);
  return { good: paint(32), bad: paint(31), weak: paint(2) };
}
