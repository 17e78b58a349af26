/** What the pictures are written with. */

export function textAt(x: number, y: number, content: string, attributes: string): string {
  return `<text x="${x}" y="${y}" ${attributes}>${escaped(content)}</text>\n`;
}

export function escaped(content: string): string {
  return content.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** A tenth of a pixel is enough. */
export function px(value: number): number {
  return Math.round(value * 10) / 10;
}
