/** `stayput bench`: measurements on this machine. */
import type { Command } from 'commander';
import { needsCheckout } from '../checkout.ts';
import { registerBenchDataplane } from './bench-dataplane.ts';
import { registerBenchDns } from './bench-dns.ts';
import { registerBenchFlood } from './bench-flood.ts';
import { registerBenchHandover } from './bench-handover.ts';
import { registerBenchMappings } from './bench-mappings.ts';
import { registerBenchMapServer } from './bench-mapserver.ts';

export function registerBenchCommand(program: Command): void {
  const bench = program.command('bench').description('Measure on this machine.');
  needsCheckout(bench);
  registerBenchDataplane(bench);
  registerBenchFlood(bench);
  registerBenchHandover(bench);
  registerBenchMappings(bench);
  registerBenchDns(bench);
  registerBenchMapServer(bench);
}
