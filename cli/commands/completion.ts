import type { Command } from 'commander';
import { commandTree } from '../command-tree.ts';
import { bashCompletion } from '../completion/bash.ts';
import { fishCompletion } from '../completion/fish.ts';
import { zshCompletion } from '../completion/zsh.ts';

export function registerCompletionCommands(program: Command): void {
  const completion = program
    .command('completion')
    .description('Print a script that completes the commands of stayput in a shell');
  for (const [shell, { script, install }] of Object.entries(SHELLS)) {
    completion
      .command(shell)
      .description(`For ${shell}: ${install}`)
      .action(() => {
        process.stdout.write(script(commandTree(program)));
      });
  }
}

const SHELLS = {
  bash: {
    script: bashCompletion,
    install: 'into /usr/share/bash-completion/completions/stayput, or source it',
  },
  zsh: { script: zshCompletion, install: 'into a folder of $fpath, as _stayput' },
  fish: { script: fishCompletion, install: 'into ~/.config/fish/completions/stayput.fish' },
} as const;
