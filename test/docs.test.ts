/** The pages of docs/ name everything that there is, and nothing that there is not. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { z } from 'zod';
import { AGENT_CONFIG } from '../agent/config.ts';
import { CONFIG as MAP_SERVER_CONFIG } from '../mapserver/config.ts';
import { PROJECT_ROOT } from '../runtime/project-root.ts';

test('configuration.md lists every key with its default, and no other', () => {
  const sections = read('docs/configuration.md').split(/^## /m);
  for (const [title, schema] of [
    ['Agent', AGENT_CONFIG],
    ['Map server', MAP_SERVER_CONFIG],
  ] as const) {
    const section = sections.find((text) => text.startsWith(title)) ?? '';
    const rows = [...section.matchAll(/^\| `([\w.]+)` \| `(.*?)` \|/gm)].map((row) => `${row[1]} = ${row[2]}`);
    assert.deepEqual(rows.sort(), defaults(schema, schema.parse({})).sort());
  }
});

test('configuration examples are valid', () => {
  const examples = [...read('docs/configuration.md').matchAll(/```json\n([\s\S]*?)```/g)];
  assert.ok(examples.length > 0);
  for (const [, text] of examples) AGENT_CONFIG.parse(JSON.parse(text ?? ''));
});

test('every link between pages leads to a file', () => {
  const pages = [
    ...readdirSync(PROJECT_ROOT),
    ...readdirSync(join(PROJECT_ROOT, 'docs')).map((name) => `docs/${name}`),
  ];
  const wrong = [...pages, 'deploy/README.md']
    .filter((page) => page.endsWith('.md'))
    .flatMap((page) =>
      [...read(page).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)]
        .filter((link) => !existsSync(join(PROJECT_ROOT, dirname(page), link[1] ?? '')))
        .map((link) => `${page}: ${link[1]}`),
    );
  assert.deepEqual(wrong, []);
});

/** `key = default as JSON` for each leaf of the schema; parts of array items are not keys of their own. */
function defaults(schema: z.ZodObject, values: unknown, prefix = ''): string[] {
  return Object.entries(schema.shape).flatMap(([key, inner]) => {
    const value = (values as Record<string, unknown>)[key];
    const section = sectionOf(inner);
    return section === undefined
      ? [`${prefix}${key} = ${JSON.stringify(value)}`]
      : defaults(section, value, `${prefix}${key}.`);
  });
}

function sectionOf(schema: unknown): z.ZodObject | undefined {
  if (schema instanceof z.ZodObject) return schema;
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault) return sectionOf(schema.unwrap());
  return undefined;
}

function read(path: string): string {
  return readFileSync(join(PROJECT_ROOT, path), 'utf8');
}
