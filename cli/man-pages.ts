/** Manual pages of section 1 in roff: `stayput(1)`, and one for each command below it with all that this one has. */
import { type ArgumentShape, allCommands, type CommandShape, type OptionShape } from './command-tree.ts';

export interface ManPage {
  /** `stayput-eid.1` */
  readonly file: string;
  readonly text: string;
}

export interface Edition {
  readonly version: string;
  /** `2026-01-31` */
  readonly date: string;
}

export function manPages(tree: CommandShape, edition: Edition): readonly ManPage[] {
  return [overview(tree, edition), ...tree.subcommands.map((group) => groupPage(group, tree, edition))];
}

function overview(tree: CommandShape, edition: Edition): ManPage {
  return page('stayput', edition, [
    ...section('NAME', `stayput \\- ${firstLower(tree.description)}`),
    ...section('SYNOPSIS', `.B stayput\n.I command\n.RI [ options ]`),
    ...section('DESCRIPTION', sentence(tree.description)),
    '.PP',
    'Each command has a page of its own, and',
    '.B \\-\\-help',
    'works at every level.',
    '.SH COMMANDS',
    ...tree.subcommands.flatMap((group) => ['.TP', `.BR ${pageName(group)} (1)`, sentence(group.description)]),
    '.SH OPTIONS',
    ...optionList(tree.options),
    ...ending([]),
  ]);
}

function groupPage(group: CommandShape, tree: CommandShape, edition: Edition): ManPage {
  const name = pageName(group);
  const commands = allCommands(group).filter(({ subcommands }) => subcommands.length === 0);
  const only = commands.length === 1 && commands[0] === group;
  return page(name, edition, [
    ...section('NAME', `${name} \\- ${firstLower(group.description)}`),
    '.SH SYNOPSIS',
    ...commands.flatMap((command, i) => [...(i > 0 ? ['.br'] : []), ...synopsis(command)]),
    ...section('DESCRIPTION', sentence(group.description)),
    ...(only
      ? [...noteLines(group), '.SH OPTIONS', ...valueList(group)]
      : ['.SH COMMANDS', ...commands.flatMap(commandSection)]),
    ...ending(tree.subcommands.filter((other) => other !== group).map(pageName)),
  ]);
}

function commandSection(command: CommandShape): readonly string[] {
  return [
    `.SS ${escaped(['stayput', ...command.path].join(' '))}`,
    sentence(command.description),
    ...noteLines(command),
    ...valueList(command),
  ];
}

function noteLines({ notes }: CommandShape): readonly string[] {
  return notes === '' ? [] : ['.PP', ...notes.split('\n').map(escaped)];
}

function synopsis({ path, args, options }: CommandShape): readonly string[] {
  const mandatory = options.filter((option) => option.mandatory).map(({ flags }) => flagMarkup(flags));
  const words = [...mandatory, '[\\fIoptions\\fR]', ...args.map(argumentMarkup)];
  return [`.B ${escaped(['stayput', ...path].join(' '))}`, words.join(' ')];
}

function valueList({ args, options }: CommandShape): readonly string[] {
  const told = args.filter(({ description, takes }) => description !== '' || takes.kind === 'choices');
  return [
    ...told.flatMap((argument) => [
      '.TP',
      `.I ${escaped(argument.name)}`,
      sentence(withChoices(argument.description, argument.takes)),
    ]),
    ...optionList(options),
  ];
}

function optionList(options: readonly OptionShape[]): readonly string[] {
  return options.flatMap(({ flags, description, takes, fallback, mandatory }) => {
    const end = [mandatory ? 'required' : [], fallback === undefined ? [] : `default: ${fallback}`].flat();
    const text = withChoices(description, takes);
    return ['.TP', flagMarkup(flags), sentence(end.length === 0 ? text : `${text} (${end.join(', ')})`)];
  });
}

function withChoices(description: string, takes: OptionShape['takes']): string {
  if (takes?.kind !== 'choices') return description;
  const list = takes.choices.join(', ');
  return description === '' ? `one of ${list}` : `${description}: ${list}`;
}

function ending(others: readonly string[]): readonly string[] {
  const pages = ['stayput', ...others].map((name) => `.BR ${escaped(name)} (1)`);
  return [
    '.SH EXIT STATUS',
    ...term('0', 'Done.'),
    ...term('1', 'It was tried and failed, or the answer is no.'),
    ...term('2', 'What was typed or configured is wrong; one line on standard error says what.'),
    '.SH ENVIRONMENT',
    ...term('STAYPUT_SOCKET', 'Socket of the agent, instead of /run/stayput/agent.sock.'),
    ...term('STAYPUT_MAPSERVER_DATA', 'Data folder of the map server, instead of /var/lib/stayput/mapserver.'),
    ...(others.length === 0 ? [] : ['.SH SEE ALSO', pages.join(',\n')]),
  ];
}

function term(name: string, meaning: string): readonly string[] {
  return ['.TP', `.B ${escaped(name)}`, escaped(meaning)];
}

function page(name: string, { version, date }: Edition, lines: readonly string[]): ManPage {
  const title = `.TH ${escaped(name.toUpperCase())} 1 ${date} "stayput ${version}" "Stayput"`;
  return { file: `${name}.1`, text: `${[title, '.nh', ...lines].join('\n')}\n` };
}

function section(title: string, text: string): readonly string[] {
  return [`.SH ${title}`, text];
}

function pageName({ path }: CommandShape): string {
  return ['stayput', ...path].join('-');
}

function argumentMarkup({ name, required, variadic }: ArgumentShape): string {
  const text = `\\fI${escaped(name)}\\fR${variadic ? '...' : ''}`;
  return required ? text : `[${text}]`;
}

/** `-c, --count <n>`: options in bold, what is put for a placeholder in italics. */
function flagMarkup(flags: string): string {
  return escaped(flags)
    .replaceAll(/(^|[ ,])((?:\\-)+[\w\\-]+)/g, '$1\\fB$2\\fR')
    .replaceAll(/<([^>]+)>/g, '\\fI$1\\fR')
    .replaceAll(/\[([^\]]+)\]/g, '[\\fI$1\\fR]');
}

function sentence(text: string): string {
  const upper = text.replace(/^[a-z]+(?=[ ,.;:])/, (word) => word.slice(0, 1).toUpperCase() + word.slice(1));
  return escaped(/[.!?]$/.test(upper) ? upper : `${upper}.`);
}

function firstLower(text: string): string {
  return escaped(text.replace(/^[A-Z](?=[a-z ])/, (letter) => letter.toLowerCase()).replace(/\.$/, ''));
}

/** As roff takes it literally: also at the start of a line, where a dot or a quote is a request. */
function escaped(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('’', '\\(cq')
    .replaceAll("'", '\\(aq')
    .replace(/^\./, '\\&.');
}
