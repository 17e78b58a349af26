/** Users of this machine, from wherever it knows them. */
import { execFileSync } from 'node:child_process';

export interface UserIds {
  readonly uid: number;
  /** Of the user's first group. */
  readonly gid: number;
}

/** `user`: a name or a number. Undefined when there is no such user. */
export function userIds(user: string | number): UserIds | undefined {
  try {
    return { uid: id('-u', user), gid: id('-g', user) };
  } catch {
    return undefined;
  }
}

function id(what: '-u' | '-g', user: string | number): number {
  return Number(
    execFileSync('id', [what, '--', String(user)], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
  );
}
