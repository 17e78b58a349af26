/** A completion script for fish: one line for each command, option and value. */
import { allCommands, type CommandShape, type OptionShape, type Takes } from '../command-tree.ts';

export function fishCompletion(tree: CommandShape): string {
  const groups = allCommands(tree).filter(({ subcommands }) => subcommands.length > 0);
  const inner = groups.flatMap(({ subcommands }) => subcommands).map(({ path }) => quoted(path.join(' ')));
  return `# fish completion for stayput; made by "stayput completion fish"

set -g __stayput_commands ${inner.join(' ')}

# Whether the words before the cursor are this command, followed by options and arguments only.
function __stayput_at
    set -l path
    for word in (commandline -opc)[2..-1]
        set -l longer (string join ' ' -- $path $word)
        contains -- $longer $__stayput_commands; or break
        set path $path $word
    end
    test "$path" = "$argv"
end

# Whether the next word is argument number $argv[1] of a command, of whose options $argv[2] take a value.
function __stayput_argument
    __stayput_at $argv[3..-1]; or return
    set -l valued (string split ' ' -- $argv[2])
    set -l position 0
    set -l words (commandline -opc)
    set -l i (count $argv)
    while test $i -le (count $words)
        if contains -- $words[$i] $valued
            set i (math $i + 1)
        else if not string match -q -- '-*' $words[$i]
            set position (math $position + 1)
        end
        set i (math $i + 1)
    end
    test $position -eq $argv[1]
end

function __stayput_interfaces
    path basename /sys/class/net/*
end

complete -c stayput -f
${allCommands(tree).flatMap(lines).join('\n')}
`;
}

function lines(command: CommandShape): readonly string[] {
  const at = `complete -c stayput -n ${quoted(['__stayput_at', ...command.path].join(' '))}`;
  return [
    ...command.subcommands.map((each) => `${at} -a ${each.path.at(-1)} -d ${quoted(each.description)}`),
    ...command.options.map((option) => `${at} ${optionWords(option)}`),
    ...command.args.flatMap(({ takes }, position) =>
      takes.kind === 'text' ? [] : `complete -c stayput -n ${quoted(argumentTest(command, position))} ${values(takes)}`,
    ),
  ];
}

function argumentTest({ path, options }: CommandShape, position: number): string {
  const valued = options.filter(({ takes }) => takes !== undefined);
  const names = valued.flatMap(({ short, long }) => [short ?? [], long].flat());
  return `__stayput_argument ${position} ${quoted(names.join(' '))} ${path.join(' ')}`;
}

function optionWords({ short, long, description, takes }: OptionShape): string {
  const name = short === undefined ? `-l ${long.slice(2)}` : `-s ${short.slice(1)} -l ${long.slice(2)}`;
  return `${name} -d ${quoted(description)}${takes === undefined ? '' : ` -r ${values(takes)}`}`;
}

function values(takes: Takes): string {
  switch (takes.kind) {
    case 'choices':
      return `-f -a ${quoted(takes.choices.join(' '))}`;
    case 'file':
      return '-F';
    case 'folder':
      return `-f -a '(__fish_complete_directories)'`;
    case 'interface':
      return `-f -a '(__stayput_interfaces)'`;
    case 'text':
      return '-f';
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
