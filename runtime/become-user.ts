/** Gives up root for good, with all capabilities and groups that came with it; of the user's groups the first remains. */
import { UsageError } from '../proto/errors.ts';
import { userIds } from './user-ids.ts';

/** @throws UsageError when there is no such user, or this process may not become it */
export function becomeUser(name: string): void {
  if (!/^[a-z_][\w.-]{0,31}$/i.test(name)) throw new UsageError(`"${name}" is not the name of a user`);
  const ids = userIds(name);
  if (ids === undefined) throw new UsageError(`there is no user ${name}`);
  const { uid, gid } = ids;
  if (process.getuid?.() === uid) return;
  try {
    process.setgroups?.([]);
    process.setgid?.(gid);
    process.setuid?.(uid);
  } catch (cause) {
    throw new UsageError(`this process may not become ${name}: run it as root`, { cause });
  }
}
