/**
 * The commands as values: what completion scripts and man pages are made of. It is read off the program that parses the
 * command line, as `--help` is, so none of them can tell of a command or an option that there is not.
 */
import type { EventEmitter } from 'node:events';
import type { Argument, Command, Option } from 'commander';

/** What is typed behind an option, or as an argument; `text` is anything. */
export type Takes =
  | { readonly kind: 'text' | 'file' | 'folder' | 'interface' }
  | { readonly kind: 'choices'; readonly choices: readonly string[] };

export interface OptionShape {
  /** `-c, --count <n>` */
  readonly flags: string;
  readonly long: string;
  readonly short?: string;
  readonly description: string;
  /** Undefined: nothing follows it. */
  readonly takes?: Takes;
  /** May be given several times. */
  readonly repeated: boolean;
  readonly mandatory: boolean;
  /** What holds without it, as text. */
  readonly fallback?: string;
}

export interface ArgumentShape {
  readonly name: string;
  readonly description: string;
  readonly takes: Takes;
  readonly required: boolean;
  readonly variadic: boolean;
}

export interface CommandShape {
  /** `['eid', 'attach']`; empty for the program itself. */
  readonly path: readonly string[];
  readonly description: string;
  /** What `--help` says below the options. */
  readonly notes: string;
  readonly options: readonly OptionShape[];
  readonly args: readonly ArgumentShape[];
  readonly subcommands: readonly CommandShape[];
}

export function commandTree(program: Command): CommandShape {
  return shape(program, []);
}

/** The command itself, and all below it. */
export function allCommands(root: CommandShape): readonly CommandShape[] {
  return [root, ...root.subcommands.flatMap(allCommands)];
}

function shape(command: Command, path: readonly string[]): CommandShape {
  return {
    path,
    description: command.description(),
    notes: notes(command),
    options: command
      .createHelp()
      .visibleOptions(command)
      .map((option) => optionShape(option)),
    args: command.registeredArguments.map((argument) => argumentShape(argument)),
    subcommands: command.commands.map((each) => shape(each, [...path, each.name()])),
  };
}

function optionShape(option: Option): OptionShape {
  const placeholder = /[<[]([^\]>]+)[\]>]/.exec(option.flags)?.[1];
  const { defaultValue } = option;
  const plain = typeof defaultValue === 'string' || typeof defaultValue === 'number';
  return {
    flags: option.flags,
    long: option.long ?? '',
    ...(option.short === undefined ? {} : { short: option.short }),
    description: option.description,
    ...(placeholder === undefined ? {} : { takes: takes(placeholder, option.argChoices) }),
    repeated: option.variadic || (option.parseArg !== undefined && option.argChoices === undefined),
    mandatory: option.mandatory && defaultValue === undefined,
    ...(plain ? { fallback: option.defaultValueDescription ?? String(defaultValue) } : {}),
  };
}

function argumentShape(argument: Argument): ArgumentShape {
  return {
    name: argument.name(),
    description: argument.description,
    takes: takes(argument.name(), argument.argChoices),
    required: argument.required,
    variadic: argument.variadic,
  };
}

function takes(placeholder: string, choices: readonly string[] | undefined): Takes {
  if (choices !== undefined) return { kind: 'choices', choices };
  return { kind: KINDS[placeholder] ?? 'text' };
}

/** The texts of `addHelpText('after', …)`, which are listeners. */
function notes(command: Command): string {
  const parts: string[] = [];
  (command as unknown as EventEmitter).emit('afterHelp', {
    error: false,
    command,
    write: (text: string) => parts.push(text),
  });
  return parts.join('').trim();
}

const KINDS: Readonly<Record<string, 'file' | 'folder' | 'interface'>> = {
  file: 'file',
  path: 'file',
  folder: 'folder',
  dir: 'folder',
  if: 'interface',
  tap: 'interface',
};
