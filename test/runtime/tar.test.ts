import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ArchiveError, packTar, unpackTar } from '../../runtime/tar.ts';
import { temporaryFolder } from './temporary-folder.ts';

const file = fc.record({
  name: fc.stringMatching(/^[a-z][a-z0-9/._-]{0,60}$/),
  content: fc.uint8Array({ maxLength: 2_000 }),
});

test('what is packed is unpacked', () => {
  fc.assert(
    fc.property(fc.array(file, { maxLength: 5 }), (files) => {
      const unpacked = unpackTar(packTar(files, 1_700_000_000_000));
      assert.deepEqual(
        unpacked.map(({ name, content }) => [name, [...content]]),
        files.map(({ name, content }) => [name, [...content]]),
      );
    }),
  );
});

test('any octets are files or an error of ours', () => {
  const valid = packTar([{ name: 'a', content: Buffer.from('b') }], 0);
  const changed = fc.tuple(fc.nat(valid.length - 1), fc.nat(255)).map(([at, octet]) => {
    const copy = Buffer.from(valid);
    copy[at] = octet;
    return copy;
  });
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 2_000 }).map((octets) => Buffer.from(octets)),
        changed,
      ),
      (octets) => {
        try {
          unpackTar(octets);
        } catch (error) {
          assert.ok(error instanceof ArchiveError);
        }
      },
    ),
  );
});

test('tar reads it', (t) => {
  const path = join(temporaryFolder(t), 'a.tar');
  writeFileSync(path, packTar([{ name: 'b/c.txt', content: Buffer.from('hello\n') }], 1_700_000_000_000));
  assert.match(
    execFileSync('tar', ['-tvf', path], { encoding: 'utf8' }),
    /^-rw------- .* 6 2023-11-1\d .* b\/c\.txt\n$/,
  );
  assert.equal(execFileSync('tar', ['-xOf', path, 'b/c.txt'], { encoding: 'utf8' }), 'hello\n');
});
