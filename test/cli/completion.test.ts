/** What `stayput completion` prints, tried in the shells themselves. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { allCommands, type CommandShape, commandTree } from '../../cli/command-tree.ts';
import { bashCompletion } from '../../cli/completion/bash.ts';
import { fishCompletion } from '../../cli/completion/fish.ts';
import { zshCompletion } from '../../cli/completion/zsh.ts';
import { buildProgram } from '../../cli/program.ts';
import { findProgram } from '../../runtime/programs.ts';

const tree = commandTree(buildProgram());
let dir = '';

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'stayput-completion-'));
  mkdirSync(join(dir, 'rules.d'));
  writeFileSync(join(dir, 'rules.txt'), '');
  writeFileSync(join(dir, 'bash'), bashCompletion(tree));
  writeFileSync(join(dir, '_stayput'), zshCompletion(tree));
  writeFileSync(join(dir, 'fish'), fishCompletion(tree));
});

after(() => {
  rmSync(dir, { recursive: true });
});

for (const [shell, complete] of [
  ['bash', inBash],
  ['zsh', inZsh],
  ['fish', inFish],
] as const) {
  const skip = findProgram(shell) === undefined ? `no ${shell}` : false;

  test(`${shell} completes commands, options, choices, interfaces and files`, { skip }, () => {
    const cases = [
      [['eid', 'a'], ['attach']],
      [
        ['mapserver', 'ca', ''],
        ['show', 'rotate', 'retire'],
      ],
      [
        ['eid', 'attach', '--when', ''],
        ['now', 'up', 'seen'],
      ],
      [['eid', 'attach', '--json', '10.77.0.5', '--when', 's'], ['seen']],
      [
        ['hook', 'qemu', ''],
        ['up', 'down'],
      ],
      [['eid', 'attach', '--interface', 'l'], ['lo']],
      [['policy', 'apply', join(dir, 'rules.t')], [join(dir, 'rules.txt')]],
      [['agent', 'join', '--state-dir', join(dir, 'rules')], [join(dir, 'rules.d')]],
      [['eid', 'detach', ''], []],
      [['token', 'create', '--ex'], ['--expires']],
    ] as const;
    const answers = complete(cases.map(([words]) => words));
    for (const [i, [words, wanted]] of cases.entries()) {
      const got = (answers[i] ?? []).map((each) => each.replace(/\/$/, ''));
      assert.deepEqual(got.sort(), [...wanted].sort(), words.join(' '));
    }
  });
}

for (const [shell, complete] of [
  ['bash', inBash],
  ['fish', inFish],
] as const) {
  const skip = findProgram(shell) === undefined ? `no ${shell}` : false;

  test(`${shell} knows every command with all of its options`, { skip }, () => {
    const commands = allCommands(tree);
    const answers = complete(commands.map(({ path }) => [...path, '--']));
    for (const [i, { path, options }] of commands.entries()) {
      const long = (answers[i] ?? []).filter((each) => each.startsWith('--'));
      assert.deepEqual(long.sort(), options.map((option) => option.long).sort(), path.join(' '));
    }
    const groups = commands.filter(({ subcommands }) => subcommands.length > 0);
    const inside = complete(groups.map(({ path }) => [...path, '']));
    for (const [i, { path, subcommands }] of groups.entries()) {
      assert.deepEqual(inside[i]?.sort(), subcommands.map(lastWord).sort(), path.join(' '));
    }
  });
}

test('bash completes what follows an equals sign, which is a word of its own there', { skip: noBash() }, () => {
  assert.deepEqual(inBash([['eid', 'attach', '--when', '=', 'n']])[0], ['now']);
  assert.deepEqual(inBash([['eid', 'attach', '--when', '=']])[0]?.sort(), ['now', 'seen', 'up']);
  assert.deepEqual(inBash([['eid', 'attach', '--when', '=', 'now', '--na']])[0], ['--name']);
});

function noBash(): string | false {
  return findProgram('bash') === undefined ? 'no bash' : false;
}

function lastWord({ path }: CommandShape): string {
  return path.at(-1) ?? '';
}

function inBash(lines: readonly (readonly string[])[]): string[][] {
  const calls = lines.map(
    (words) => `COMP_WORDS=(stayput ${words.map(quoted).join(' ')}); COMP_CWORD=${words.length}; answer`,
  );
  const script = [
    // Refuses to be called outside of a completion.
    'compopt() { :; }',
    `source ${join(dir, 'bash')}`,
    `answer() { _stayput; printf "%s\\n" "\${COMPREPLY[@]}" "$ANSWERED"; }`,
    'complete -p stayput > /dev/null || exit 1',
    ...calls,
  ];
  return answers('bash', ['--norc', '-c', script.join('\n')], lines.length);
}

function inFish(lines: readonly (readonly string[])[]): string[][] {
  const calls = lines.map((words) => `complete -C ${quoted(['stayput', ...words].join(' '))}; echo $ANSWERED`);
  const script = [`source ${join(dir, 'fish')}`, ...calls].join('\n');
  const result = answers('fish', ['--no-config', '-c', script], lines.length);
  return result.map((answer) => answer.map((each) => each.split('\t', 1)[0] ?? ''));
}

/** zsh completes at a terminal only: a shell in a pseudo-terminal of its own, whose compadd tells what it is given. */
function inZsh(lines: readonly (readonly string[])[]): string[][] {
  const inner = `
fpath=(${dir} $fpath)
autoload -Uz compinit && compinit -D -u
tell() {
  local -a found prefix asked
  zparseopts -E O:=asked A:=asked D:=asked p:=prefix
  if (( $#asked > 0 )); then builtin compadd "$@"; return; fi
  builtin compadd -A found "$@"
  local each; for each in $found; do print -r -- "$IPREFIX$prefix[2]$each" >> $ANSWERS; done
  builtin compadd "$@"
}
answer-all() { compadd() { tell "$@" }; _main_complete; unfunction compadd; compstate[insert]=; compstate[list]= }
zle -C complete-word complete-word answer-all
answer() { zle complete-word; print -r -- $ANSWERED >> $ANSWERS; zle kill-buffer }
zle -N answer; bindkey "^I" answer
print READY
`;
  writeFileSync(join(dir, 'inner.zsh'), inner);
  const outer = [
    'zmodload zsh/zpty',
    'zpty shell zsh -f -i',
    `zpty -w shell "source ${join(dir, 'inner.zsh')}"`,
    "zpty -r -m shell output '*READY*'",
    ...lines.flatMap((words, i) => [
      `zpty -w -n shell ${quoted(`${['stayput', ...words].join(' ')}\t`)}`,
      `until (( $(grep -cx "$ANSWERED" $ANSWERS) > ${i} )); do zpty -r -t shell output; sleep 0.02; done`,
    ]),
    'cat $ANSWERS',
  ];
  writeFileSync(join(dir, 'answers'), '');
  return answers('zsh', ['-f', '-c', outer.join('\n')], lines.length);
}

function answers(program: string, args: readonly string[], count: number): string[][] {
  const env = { ...process.env, ANSWERED, ANSWERS: join(dir, 'answers'), HOME: dir };
  // One process gives all answers, hundreds of them.
  const timeout = 60_000 + 5_000 * count;
  const { stdout, stderr, status } = spawnSync(program, args, { cwd: dir, encoding: 'utf8', env, timeout });
  assert.equal(status, 0, `${stderr}\n${stdout}`);
  assert.equal(stderr, '');
  const parts = stdout.split(`${ANSWERED}\n`).slice(0, -1);
  return parts.map((part) => [...new Set(part.split('\n').filter((line) => line !== ''))]);
}

function quoted(word: string): string {
  return `'${word}'`;
}

const ANSWERED = '=end of answer=';
