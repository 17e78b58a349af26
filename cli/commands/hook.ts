/** `stayput hook …`: what other programs call when they start, move or stop a workload. See deploy/hooks. */
import { execFile } from 'node:child_process';
import { Argument, type Command } from 'commander';
import { StayputError, UsageError } from '../../proto/errors.ts';
import { type ClientOptions, withClientOptions } from '../agent-client.ts';
import { criuEvent } from '../hooks/criu.ts';
import { checkedEid, checkedInterface, tellAgent } from '../hooks/workload.ts';

export function registerHookCommands(program: Command): void {
  const hook = program
    .command('hook')
    .description('What hypervisors, container engines and CRIU call when a workload comes or goes (deploy/hooks)');
  withClientOptions(
    hook
      .command('libvirt')
      .description('The qemu hook of libvirt: EIDs from the metadata of the domain on standard input')
      .argument('<guest>')
      .argument('<operation>')
      .argument('[sub-operation]')
      .argument('[extra]'),
  ).action(
    async (
      _guest: string,
      operation: string,
      subOperation: string | undefined,
      _extra: unknown,
      options: ClientOptions,
    ) => {
      const { libvirtEvents } = await import('../hooks/libvirt.ts');
      await tellAgent(libvirtEvents(operation, subOperation ?? '', await standardInput()), options);
    },
  );
  withClientOptions(
    hook
      .command('qemu')
      .description('A script or downscript of a tap device; the EID is in STAYPUT_EID')
      .addArgument(new Argument('<event>').choices(['up', 'down']))
      .argument('<tap>', 'name of the tap device'),
  ).action(async (event: string, tap: string, options: ClientOptions) => {
    const on = checkedInterface(tap, 'tap');
    if (event === 'up') await run('ip', ['link', 'set', on, 'up']);
    await tellAgent([{ ...workload(on), what: event === 'up' ? 'expected' : 'gone' }], options);
  });
  withClientOptions(
    hook
      .command('criu')
      .description('The action script of CRIU; the EID is in STAYPUT_EID, its interface in STAYPUT_INTERFACE'),
  ).action(async (options: ClientOptions) => {
    const what = criuEvent(process.env.CRTOOLS_SCRIPT_ACTION ?? '');
    if (what === null) return;
    const on = checkedInterface(process.env.STAYPUT_INTERFACE ?? '', 'STAYPUT_INTERFACE');
    await tellAgent([{ ...workload(on), what }], options);
  });
  withClientOptions(
    hook
      .command('oci')
      .description('A hook of an OCI runtime: the EID is the annotation stayput.eid of the state on standard input'),
  ).action(async (options: ClientOptions) => {
    const { demandOwnNetwork, ociSteps } = await import('../hooks/oci.ts');
    const steps = ociSteps(await standardInput());
    if (steps === null) return;
    if (steps.pid !== null) await demandOwnNetwork(steps.pid);
    if (steps.host.length > 0) await run('ip', ['-batch', '-'], steps.host);
    if (steps.pid !== null) {
      await run('nsenter', [`--net=/proc/${steps.pid}/ns/net`, 'ip', '-batch', '-'], steps.container);
    }
    await tellAgent([steps.event], options);
  });
}

function workload(on: string) {
  const name = process.env.STAYPUT_NAME;
  const names = name === undefined || name === '' ? [] : [name];
  return { eid: checkedEid(process.env.STAYPUT_EID ?? '', 'STAYPUT_EID'), interface: on, names };
}

async function standardInput(): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > MAX_INPUT) throw new UsageError('standard input is larger than 4 MiB');
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function run(program: string, args: readonly string[], lines: readonly string[] = []): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { timeout: COMMAND_TIMEOUT_MS }, (error, _stdout, stderr) => {
      if (error === null) return resolve();
      const why = stderr.trim() || error.message;
      reject(new StayputError('STAYPUT_HOOK', `${[program, ...args].join(' ')}: ${why}`, { cause: error }));
    });
    child.stdin?.on('error', () => {});
    child.stdin?.end(lines.map((line) => `${line}\n`).join(''));
  });
}

const MAX_INPUT = 4 * 1024 * 1024;
const COMMAND_TIMEOUT_MS = 10_000;
