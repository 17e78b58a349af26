import assert from 'node:assert/strict';

/** Every element of a picture is closed, and no stray `<` or `>` is in it. */
export function assertWellFormed(svg: string): void {
  const open: string[] = [];
  for (const [, closing, name = '', selfClosing] of svg.matchAll(/<(\/?)([a-z]+)(?:\s+[\w:-]+="[^"<]*")*\s*(\/?)>/g)) {
    if (closing === '/') assert.equal(open.pop(), name);
    else if (selfClosing !== '/') open.push(name);
  }
  assert.deepEqual(open, []);
  assert.equal(svg.match(/</g)?.length, svg.match(/<\/?[a-z][^<>]*>/g)?.length);
}
