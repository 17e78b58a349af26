/**
 * Agents in numbers, enrolled without asking the map server: their records are in its store before it starts.
 * What `init` made signs their certificates.
 */
import { createPublicKey } from 'node:crypto';
import { join } from 'node:path';
import { type AgentKeys, generateKeys } from '../../agent/shell/identity.ts';
import { type AgentRecord, type Registrable, recordKey } from '../../mapserver/core/records.ts';
import { AGENT_LIFE, certifyAgent, fingerprint, keyHash } from '../../mapserver/shell/certificate-authority.ts';
import { openOverlay } from '../../mapserver/shell/overlay-files.ts';
import { encodeRecord } from '../../mapserver/shell/record-codec.ts';
import { SqliteStore } from '../../mapserver/store/sqlite.ts';
import { xtrIdOf } from '../../proto/identity.ts';
import type { WallClock } from '../../proto/time.ts';

export interface Member {
  readonly keys: AgentKeys;
  readonly certificate: string;
}

/** To be called before the map server of this folder runs. */
export async function enrolFleet(
  dataDir: string,
  count: number,
  grant: Partial<Registrable>,
  now: WallClock,
): Promise<Member[]> {
  const { authority } = openOverlay(dataDir, now);
  const certificateOf = { authority: fingerprint(authority.certificate), notAfter: now + AGENT_LIFE };
  const store = new SqliteStore({ path: join(dataDir, 'store.db'), clock: () => now });
  try {
    const enrolled = Array.from({ length: count }, () => {
      const keys = generateKeys();
      const publicKey = createPublicKey(keys.tlsPrivateKey);
      const xtrId = xtrIdOf(keys.tunnelKey);
      const record: AgentRecord = {
        ...{ kind: 'agent', xtrId, tunnelKey: keys.tunnelKey, certificateKey: keyHash(publicKey) },
        ...{ certificate: certificateOf, tokenId: '00', software: 'test', enrolledAt: now },
        ...{ eids: grant.eids ?? [], names: grant.names ?? [], groups: [] },
      };
      return { keys, certificate: certifyAgent(authority, publicKey, xtrId, now), record };
    });
    // All in one turn, so that they share a commit.
    await Promise.all(
      enrolled.map(({ record }) => {
        const key = recordKey(record);
        return store.compareAndSet([{ key, revision: 0 }], [{ key, value: encodeRecord(record) }]);
      }),
    );
    return enrolled.map(({ keys, certificate }) => ({ keys, certificate }));
  } finally {
    await store.close();
  }
}
