import type { Command } from 'commander';

export function registerMapserverCommands(_program: Command): void {}
