import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { admin, type ListOptions, mapServerCommand } from '../map-server-client.ts';
import { printJson, printLines } from '../output.ts';

export interface AuthorityFileOptions {
  readonly caCert?: string;
  readonly caKey?: string;
}

export function registerAuthorityCommands(mapserver: Command): void {
  const ca = mapserver.command('ca').description('The certificate authority of the overlay, and its roll-over');
  mapServerCommand(ca, 'show', 'The authority in use, the one before, and who still depends on that').action(
    async (options: ListOptions) => show(await admin(options, 'GET', '/v1/authority'), options),
  );
  mapServerCommand(ca, 'rotate', 'Let a new authority take over, without an outage; agents renew their certificates')
    .option('--ca-cert <file>', 'certificate of an operator’s authority, PEM; the issuers of it may follow')
    .option('--ca-key <file>', 'its private key, PEM')
    .action(async (options: ListOptions & AuthorityFileOptions) =>
      show(await admin(options, 'POST', '/v1/authority/rotate', readAuthorityFiles(options) ?? {}), options),
    );
  mapServerCommand(ca, 'retire', 'Trust the authority before no more; happens by itself when nobody depends on it')
    .option('--force', 'even if agents then have to join again')
    .action(async (options: ListOptions & { readonly force?: boolean }) =>
      show(await admin(options, 'POST', '/v1/authority/retire', { force: options.force === true }), options),
    );
}

/** Both files, or undefined without the options. @throws UsageError */
export function readAuthorityFiles({
  caCert,
  caKey,
}: AuthorityFileOptions): { readonly certificate: string; readonly key: string } | undefined {
  if (caCert === undefined && caKey === undefined) return undefined;
  if (caCert === undefined || caKey === undefined) throw new UsageError('give both --ca-cert and --ca-key');
  return { certificate: read('--ca-cert', caCert), key: read('--ca-key', caKey) };
}

function read(option: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new UsageError(`${option} ${path}: cannot be read (${(cause as Error).message})`, { cause });
  }
}

interface Authority {
  readonly fingerprint: string;
  readonly subject: string;
  readonly issuer: string;
  readonly notAfter: number;
}

interface Dependents {
  readonly agents: number;
  readonly tokens: readonly string[];
}

interface View {
  readonly authority: Authority;
  readonly retiring: (Authority & { readonly since: number; readonly dependents: Dependents }) | null;
  readonly server: { readonly notAfter: number };
}

function show(answer: unknown, options: ListOptions): void {
  if (options.json) {
    printJson(answer);
    return;
  }
  const { authority, retiring, server } = answer as View;
  const lines = [
    `authority      ${authority.subject}`,
    `  fingerprint  ${authority.fingerprint}`,
    ...(authority.issuer === authority.subject ? [] : [`  issuer       ${authority.issuer}`]),
    `  ends         ${date(authority.notAfter)}`,
    `map server     certificate ends ${date(server.notAfter)}`,
  ];
  if (retiring !== null) {
    lines.push(
      `retiring       ${retiring.subject}`,
      `  fingerprint  ${retiring.fingerprint}`,
      `  since        ${date(retiring.since)}`,
      `  needed by    ${retiring.dependents.agents} agents`,
      ...retiring.dependents.tokens.map((id) => `               join token ${id}`),
    );
  }
  printLines(...lines);
}

function date(at: number): string {
  return new Date(at).toISOString();
}
