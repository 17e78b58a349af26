/**
 * Objects against Kubernetes' own description of its API (test/vectors/kubernetes-api.json), strictly: an unknown field is
 * an error, as it is for `kubectl --validate=strict`.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';

export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

interface Schema {
  readonly $ref?: string;
  readonly type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean';
  readonly format?: string;
  readonly enum?: readonly unknown[];
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema;
  readonly items?: Schema;
  readonly 'x-kubernetes-group-version-kind'?: readonly { group: string; version: string; kind: string }[];
}

const API = JSON.parse(readFileSync(join(PROJECT_ROOT, 'test/vectors/kubernetes-api.json'), 'utf8')) as {
  readonly version: string;
  readonly definitions: Readonly<Record<string, Schema>>;
};

export const API_VERSION = API.version;

/** What is wrong with the object, one line each. */
export function problemsOf(object: KubernetesObject): string[] {
  const { apiVersion, kind } = object;
  const schema = Object.values(API.definitions).find((each) =>
    each['x-kubernetes-group-version-kind']?.some(
      ({ group, version, kind: name }) => name === kind && [group, version].filter(Boolean).join('/') === apiVersion,
    ),
  );
  const at = `${kind} ${object.metadata.name}`;
  return schema === undefined ? [`${at}: there is no ${kind} in ${apiVersion}`] : check(object, schema, at);
}

function check(value: unknown, schema: Schema, at: string): string[] {
  if (schema.$ref !== undefined) {
    const definition = API.definitions[schema.$ref.replace('#/definitions/', '')];
    return definition === undefined ? [`${at}: ${schema.$ref} is not in the vectors`] : check(value, definition, at);
  }
  if (schema.enum !== undefined && !schema.enum.includes(value)) return [`${at}: ${value} is none of ${schema.enum}`];
  if (schema.format === 'int-or-string') return isIntOrString(value) ? [] : [`${at}: neither a number nor a word`];
  switch (schema.type) {
    case 'object':
    case undefined:
      return isObject(value) ? checkObject(value, schema, at) : [`${at}: not an object`];
    case 'array':
      if (!Array.isArray(value)) return [`${at}: not a list`];
      return value.flatMap((each, i) => check(each, schema.items ?? {}, `${at}[${i}]`));
    case 'string':
      return typeof value === 'string' ? [] : [`${at}: not a string`];
    case 'integer':
      return Number.isInteger(value) ? [] : [`${at}: not a whole number`];
    default:
      return typeof value === schema.type ? [] : [`${at}: not a ${schema.type}`];
  }
}

function checkObject(value: Readonly<Record<string, unknown>>, schema: Schema, at: string): string[] {
  const missing = (schema.required ?? []).filter((name) => !(name in value));
  const free = schema.properties === undefined && schema.additionalProperties === undefined;
  return [
    ...missing.map((name) => `${at}.${name}: missing`),
    ...Object.entries(value).flatMap(([name, each]) => {
      const inner = schema.properties?.[name] ?? schema.additionalProperties;
      if (inner !== undefined) return check(each, inner, `${at}.${name}`);
      return free ? [] : [`${at}.${name}: unknown`];
    }),
  ];
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isIntOrString(value: unknown): boolean {
  return typeof value === 'string' || Number.isInteger(value);
}
