/**
 * A completion script for bash. It asks for nothing of bash-completion, and starts no process: what the commands take is
 * a table inside the script.
 */
import { allCommands, type CommandShape, type Takes } from '../command-tree.ts';

export function bashCompletion(tree: CommandShape): string {
  const commands = allCommands(tree);
  return `# bash completion for stayput; made by "stayput completion bash"

# Sets for a command what may follow: commands, options, and those of them that take a value.
_stayput_command() {
  commands='' options='' valued='' variadic=''
  case $1 in
${commands.map(commandCase).join('\n')}
  esac
}

# Prints what kind of value an option ("eid attach --when") or an argument ("eid attach 0") takes.
_stayput_takes() {
  case $1 in
${commands.flatMap(valueCases).join('\n')}
  esac
}

_stayput() {
  local cur=\${COMP_WORDS[COMP_CWORD]} path='' i=1 position=0 takes=''
  local commands options valued variadic before=''
  COMPREPLY=()
  _stayput_command ''
  while ((i < COMP_CWORD)) && [[ " $commands " == *" \${COMP_WORDS[i]} "* ]]; do
    path=\${path:+$path }\${COMP_WORDS[i]}
    _stayput_command "$path"
    ((i += 1))
  done
  # bash makes a word of its own of the "=" in --option=value.
  for (( ; i < COMP_CWORD; i++)); do
    if [[ " $valued " == *" \${COMP_WORDS[i]} "* ]]; then
      before=\${COMP_WORDS[i]}
      [[ \${COMP_WORDS[i + 1]} == = ]] && ((i += 1))
      ((i += 1))
      ((i < COMP_CWORD)) && before=''
    elif [[ \${COMP_WORDS[i]} != -* ]]; then
      ((position += 1))
    fi
  done
  [[ $cur == = ]] && cur=''
  if [[ -n $before ]]; then
    takes=$(_stayput_takes "$path $before")
  elif [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    return
  elif [[ -n $commands ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
    return
  else
    [[ -n $variadic ]] && ((position > variadic)) && position=$variadic
    takes=$(_stayput_takes "$path $position")
  fi
  case $takes in
    file)
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      ;;
    folder)
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -d -- "$cur")
      ;;
    interface) mapfile -t COMPREPLY < <(cd /sys/class/net && compgen -d -- "$cur") ;;
    choices:*) mapfile -t COMPREPLY < <(compgen -W "\${takes#choices:}" -- "$cur") ;;
  esac
}

complete -F _stayput stayput
`;
}

function commandCase({ path, subcommands, options, args }: CommandShape): string {
  const names = (of: typeof options): string => of.flatMap(({ short, long }) => [short ?? [], long].flat()).join(' ');
  const set = [
    subcommands.length > 0 ? `commands='${subcommands.map((each) => each.path.at(-1)).join(' ')}'` : [],
    `options='${names(options)}'`,
    options.some((option) => option.takes) ? `valued='${names(options.filter((option) => option.takes))}'` : [],
    args.at(-1)?.variadic === true ? `variadic=${args.length - 1}` : [],
  ].flat();
  return `    '${path.join(' ')}') ${set.join(' ')} ;;`;
}

function valueCases({ path, options, args }: CommandShape): readonly string[] {
  const line = (name: string, takes: Takes | undefined): readonly string[] => {
    if (takes === undefined || takes.kind === 'text') return [];
    const kind = takes.kind === 'choices' ? `choices:${takes.choices.join(' ')}` : takes.kind;
    return [`    '${[...path, name].join(' ')}') echo '${kind}' ;;`];
  };
  return [
    ...options.flatMap(({ short, long, takes }) => [short ?? [], long].flat().flatMap((name) => line(name, takes))),
    ...args.flatMap(({ takes }, position) => line(String(position), takes)),
  ];
}
