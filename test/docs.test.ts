/** The pages of docs/ name everything that there is, and nothing that there is not. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import type { Command } from 'commander';
import { z } from 'zod';
import { AGENT_CONFIG } from '../agent/config.ts';
import { DATAPLANE_HELP } from '../agent/shell/dataplane-metrics.ts';
import { DnsMetrics } from '../agent/shell/dns-metrics.ts';
import { AgentMetrics } from '../agent/shell/metrics.ts';
import { buildProgram } from '../cli/program.ts';
import { CONFIG as MAP_SERVER_CONFIG } from '../mapserver/config.ts';
import type { MapServer } from '../mapserver/core/map-server.ts';
import { MapServerMetrics } from '../mapserver/shell/metrics.ts';
import { checkOffline } from '../mapserver/shell/policy-api.ts';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { attacks, attackTable } from '../scripts/attacks.ts';

test('configuration.md lists every key with its default, and no other', () => {
  const sections = read('docs/configuration.md').split(/^## /m);
  for (const [title, schema] of [
    ['Agent', AGENT_CONFIG],
    ['Map server', MAP_SERVER_CONFIG],
  ] as const) {
    const section = sections.find((text) => text.startsWith(title)) ?? '';
    const rows = [...section.matchAll(/^\| `([\w.]+)` \| (?:`(.*?)` )?/gm)].map(
      (row) => `${row[1]} = ${row[2] ?? 'none'}`,
    );
    assert.deepEqual(rows.sort(), defaults(schema, schema.parse({})).sort());
  }
});

test('configuration examples are valid', () => {
  const examples = [...read('docs/configuration.md').matchAll(/```json\n([\s\S]*?)```/g)];
  assert.ok(examples.length > 0);
  for (const [, text] of examples) AGENT_CONFIG.parse(JSON.parse(text ?? ''));
});

test('the example of policy.md is right, and does what it expects of itself', () => {
  const [, example = ''] = /```text\n(# Who may talk[\s\S]*?)```/.exec(read('docs/policy.md')) ?? [];
  const { ok, problems, expectations } = checkOffline(example);
  assert.deepEqual(problems, []);
  assert.equal(expectations.length, 3);
  assert.deepEqual(
    expectations.flatMap(({ problem }) => problem ?? []),
    [],
  );
  assert.ok(ok);
});

test('cli.md has every command with each of its options, and no other', () => {
  const program = buildProgram();
  const sections = new Map(
    read('docs/cli.md')
      .split(/^### `/m)
      .slice(1)
      .map((text) => [text.slice(0, text.indexOf('`')), text.split(/^## /m, 1)[0] ?? ''] as const),
  );
  const commands = leaves(program);
  assert.deepEqual([...sections.keys()].sort(), commands.map(usage).sort());
  for (const command of commands) {
    const documented: readonly string[] = (sections.get(usage(command)) ?? '').match(/--[a-z][a-z0-9-]+/g) ?? [];
    const known = command.options.map((option) => option.long ?? '');
    assert.deepEqual(
      known.filter((option) => !documented.includes(option)),
      [],
      `undocumented in ${usage(command)}`,
    );
    assert.deepEqual(
      documented.filter((option) => !known.includes(option)),
      [],
      `unknown in ${usage(command)}`,
    );
  }
});

test('metrics.md lists every metric with its labels, and no other', () => {
  const agent = new AgentMetrics(
    () => assert.fail(),
    () => assert.fail(),
  ).registry;
  new DnsMetrics(agent, { cacheEntries: () => assert.fail(), upstreams: () => assert.fail() });
  const server = new MapServerMetrics();
  server.observe({} as MapServer);
  server.observeConnections(() => assert.fail());
  server.observeTrust({ ends: () => assert.fail() });
  server.observeZone(() => assert.fail());
  const named = [...agent.getMetricsAsArray(), ...server.registry.getMetricsAsArray()]
    .map((metric) => metric as unknown as { name: string; labelNames: string[] })
    .filter(({ name }) => name.startsWith('stayput_'))
    .map(({ name, labelNames }) => `${name} ${labelNames.join(',')}`.trim());
  const counters = [...read('dataplane/src/stats.rs').matchAll(/^ {4}\w+ => "([\w.]+)",$/gm)].map(
    (match) => match[1] ?? '',
  );
  const plain = counters
    .filter((name) => !name.includes('.'))
    .map((name) => `stayput_dataplane_${name.replace(/_total$/, '')}_total`);
  const listed = [...read('docs/metrics.md').matchAll(/^\| `(stayput_\w+)(?:\{([\w,]*)\})?` \|/gm)].map((row) =>
    `${row[1]} ${row[2] ?? ''}`.trim(),
  );
  const wanted = [...named, ...plain, ...ELSEWHERE];
  assert.deepEqual(listed.sort(), wanted.sort());
  assert.deepEqual(
    Object.keys(DATAPLANE_HELP).sort(),
    listed.flatMap((row) => /^stayput_dataplane_(\w+)/.exec(row)?.[1] ?? []).sort(),
  );
  const reasons = [...read('docs/metrics.md').matchAll(/^\| `(drop|fallback)` \| `(\w+)` \|/gm)].map(
    (row) => `${row[1]}.${row[2]}`,
  );
  assert.deepEqual(reasons.sort(), counters.filter((name) => name.includes('.')).sort());
});

test('logging.md lists every field that is logged', () => {
  const fields = new Set<string>();
  for (const folder of ['agent', 'mapserver', 'runtime']) {
    for (const path of readdirSync(join(PROJECT_ROOT, folder), { recursive: true, encoding: 'utf8' })) {
      if (!path.endsWith('.ts')) continue;
      const calls = read(`${folder}/${path}`).matchAll(/log\.(?:debug|info|warn|error|fatal)\(\s*\{([^{}]*)\}/g);
      for (const [, body] of calls) {
        for (const [, field] of (body ?? '').matchAll(/(?:^|,)\s*(\w+)/g)) if (field !== undefined) fields.add(field);
      }
    }
  }
  const listed = [...read('docs/logging.md').matchAll(/^\| `(\w+)` \|/gm)].map((row) => row[1] ?? '');
  assert.ok(fields.size > 10);
  assert.deepEqual([...fields].filter((field) => !listed.includes(field)).sort(), []);
});

test('security.md lists every attack that a test tries', () => {
  const tried = attacks();
  assert.ok(tried.length >= 60, `${tried.length}`);
  assert.ok(read('docs/security.md').includes(`\n\n${attackTable(tried)}\n\n`), 'run `npm run attack-table`');
});

test('troubleshooting.md quotes what the programs say', () => {
  const sources = ['agent', 'cli', 'mapserver', 'runtime', 'dataplane/src'].flatMap((folder) =>
    readdirSync(join(PROJECT_ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((path) => /\.(ts|rs)$/.test(path))
      .map((path) => read(`${folder}/${path}`)),
  );
  const [symptoms = ''] = read('docs/troubleshooting.md').split('## Alerts');
  const quoted = [...symptoms.matchAll(/^\| (.*?) \| /gm)]
    .flatMap(([, cell]) => [...(cell ?? '').matchAll(/`([^`]+)`/g)].map(([, text]) => text ?? ''))
    // What stands for something else ends a piece that must be there word for word.
    .flatMap((text) => text.split(/…|\(\.\.\.\)|\b(?:N|FILE|YOU)\b/))
    .map((text) => text.replace(/^[\s:;"]+|[\s:;"]+$/g, ''))
    .filter((text) => text.split(' ').length >= 3 && !/^(stayput|dig) /.test(text));
  assert.ok(quoted.length >= 25, `${quoted.length}`);
  const missing = quoted.filter((text) => !OF_THE_SYSTEM.has(text) && !sources.some((source) => source.includes(text)));
  assert.deepEqual(missing, []);
});

test('every link between pages leads to a file, and to a heading that is in it', () => {
  const below = (folder: string): string[] =>
    readdirSync(join(PROJECT_ROOT, folder), { recursive: true, encoding: 'utf8' }).map((path) => join(folder, path));
  const pages = [...readdirSync(PROJECT_ROOT), ...below('docs'), ...below('deploy')].filter((path) =>
    path.endsWith('.md'),
  );
  assert.ok(pages.length > 30, `${pages.length}`);
  let anchors = 0;
  const wrong = pages.flatMap((page) =>
    [...read(page).matchAll(/\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?/g)]
      .filter(([, path = '', anchor]) => {
        const target = path === '' ? page : join(dirname(page), path);
        if (anchor === undefined || !target.endsWith('.md')) return !existsSync(join(PROJECT_ROOT, target));
        anchors += 1;
        return !existsSync(join(PROJECT_ROOT, target)) || !headings(read(target)).has(anchor);
      })
      .map(([link]) => `${page}: ${link}`),
  );
  assert.deepEqual(wrong, []);
  assert.ok(anchors > 100, `${anchors}`);
});

test('headings are linked to as GitHub names them', () => {
  const page = '# Of `a.b` and C_d\n```\n# no heading\n```\n## What, [a link](x.md)? – Two\n## Again\n### Again\n';
  assert.deepEqual([...headings(page)], ['of-ab-and-c_d', 'what-a-link--two', 'again', 'again-1']);
});

/** The anchors of a page's headings. */
function headings(page: string): ReadonlySet<string> {
  const prose = page.replace(/^ *```[\s\S]*?^ *```/gm, '');
  const anchors = new Set<string>();
  for (const [, heading = ''] of prose.matchAll(/^#{1,6} +(.*)$/gm)) {
    const shown = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .trim()
      .toLowerCase();
    const name = shown.replace(/[^\p{L}\p{M}\p{N}\p{Pc} -]/gu, '').replaceAll(' ', '-');
    let anchor = name;
    for (let again = 1; anchors.has(anchor); again++) anchor = `${name}-${again}`;
    anchors.add(anchor);
  }
  return anchors;
}

function leaves(command: Command): Command[] {
  const below = command.commands.flatMap((each) => leaves(each));
  // What takes arguments does something itself as well.
  return command.commands.length === 0 || command.registeredArguments.length > 0 ? [command, ...below] : below;
}

/** `stayput eid attach <eid>` */
function usage(command: Command): string {
  const parents: string[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) parents.unshift(at.name());
  const taken = command.registeredArguments.map((arg) => {
    const name = `${arg.name()}${arg.variadic ? '...' : ''}`;
    return arg.required ? `<${name}>` : `[${name}]`;
  });
  return [...parents, ...taken].join(' ');
}

/** `key = default as JSON`, or `key = none`, for each leaf of the schema; parts of array items are not keys of their own. */
function defaults(schema: z.ZodObject, values: unknown, prefix = ''): string[] {
  return Object.entries(schema.shape).flatMap(([key, inner]) => {
    const value = (values as Record<string, unknown>)[key];
    const section = sectionOf(inner);
    return section === undefined
      ? [`${prefix}${key} = ${value === undefined ? 'none' : JSON.stringify(value)}`]
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

/** Said by the kernel or by other programs. */
const OF_THE_SYSTEM = new Set(['No route to host']);

/** Registered when their sockets open, or read from the data plane at a scrape. */
const ELSEWHERE = [
  'stayput_dataplane_drops_total reason',
  'stayput_dataplane_fallbacks_total reason',
  'stayput_dataplane_held_bytes',
  'stayput_dataplane_held_packets',
  'stayput_dataplane_local_eids',
  'stayput_dataplane_mappings',
  'stayput_dataplane_peers',
  'stayput_dataplane_policy_rules',
  'stayput_dataplane_policy_version',
  'stayput_dataplane_rss_bytes',
  'stayput_dataplane_sessions',
];
