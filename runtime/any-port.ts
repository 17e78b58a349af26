/** The same number for a port of TCP and one of UDP, when any will do. */

/**
 * Runs `open`, and again if `port` is 0: the number that the system chose for one transport may be taken on the other.
 * @throws what `open` threw last
 */
export async function onBothTransports<T>(port: number, open: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await open();
    } catch (error) {
      if (port !== 0 || attempt === ATTEMPTS) throw error;
    }
  }
}

const ATTEMPTS = 10;
