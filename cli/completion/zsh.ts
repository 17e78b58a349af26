/** A completion function for zsh, to be in `$fpath` as `_stayput`: one function for each command. */
import { type ArgumentShape, allCommands, type CommandShape, type OptionShape, type Takes } from '../command-tree.ts';

export function zshCompletion(tree: CommandShape): string {
  return `#compdef stayput
# zsh completion for stayput; made by "stayput completion zsh"

${allCommands(tree).map(functionOf).join('\n\n')}

if [ "$funcstack[1]" = _stayput ]; then
  _stayput "$@"
else
  compdef _stayput stayput
fi
`;
}

function functionOf(command: CommandShape): string {
  const options = command.options.flatMap(optionSpecs);
  if (command.subcommands.length > 0) return groupFunction(command, options);
  const specs = [...options, ...command.args.map(argumentSpec)];
  return `${functionName(command)}() {
  _arguments -s -S \\
    ${specs.join(' \\\n    ')}
}`;
}

function groupFunction(command: CommandShape, options: readonly string[]): string {
  const described = command.subcommands.map(
    (each) => `    ${quoted(`${each.path.at(-1)}:${each.description.replaceAll(':', '\\:')}`)}`,
  );
  const cases = command.subcommands.map((each) => `        ${each.path.at(-1)}) ${functionName(each)} ;;`);
  return `${functionName(command)}() {
  local curcontext="$curcontext" state line
  typeset -A opt_args
  local -a commands
  commands=(
${described.join('\n')}
  )
  _arguments -C \\
    ${[...options, "'1: :->command'", "'*:: :->rest'"].join(' \\\n    ')}
  case $state in
    command) _describe -t commands command commands ;;
    rest)
      case $words[1] in
${cases.join('\n')}
      esac
      ;;
  esac
}`;
}

function functionName({ path }: CommandShape): string {
  return ['_stayput', ...path].join('_');
}

function optionSpecs({ short, long, description, takes, repeated }: OptionShape): readonly string[] {
  const told = `[${description.replaceAll(/[[\]\\:]/g, '\\$&')}]`;
  const value = takes === undefined ? '' : `:${long.slice(2)}:${action(takes)}`;
  const mark = repeated ? '*' : '';
  return [
    ...(short === undefined ? [] : [quoted(`${mark}${short}${takes === undefined ? '' : '+'}${told}${value}`)]),
    quoted(`${mark}${long}${takes === undefined ? '' : '='}${told}${value}`),
  ];
}

function argumentSpec({ name, takes, required, variadic }: ArgumentShape): string {
  const place = variadic ? '*:' : required ? ':' : '::';
  return quoted(`${place}${name}:${action(takes)}`);
}

function action(takes: Takes): string {
  switch (takes.kind) {
    case 'choices':
      return `(${takes.choices.join(' ')})`;
    case 'file':
      return '_files';
    case 'folder':
      return '_files -/';
    case 'interface':
      return '_net_interfaces';
    case 'text':
      return ' ';
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
