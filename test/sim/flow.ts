/** What happened in a world, as lines that a person can follow, and as a mermaid sequence diagram. */
import type { DataplaneCommand, DataplaneEvent } from '../../proto/dataplane/messages.ts';
import { eidKey } from '../../proto/eid.ts';
import { decodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { mappingsOf, queriesOf } from '../../proto/lisp/native.ts';
import { isTarget, type TunnelKey, type XtrId } from '../../proto/mapping.ts';
import type { Instant } from '../../proto/time.ts';
import type { Packet } from './dataplane.ts';

interface Line {
  readonly at: Instant;
  readonly from: string;
  readonly to: string;
  readonly text: string;
}

type What = string | LispMessage | DataplaneCommand | DataplaneEvent | Packet;

export class Flow {
  private readonly lines: Line[] = [];
  private readonly names: { readonly of: (id: XtrId | TunnelKey) => string };

  constructor(nameOf: (id: XtrId | TunnelKey) => string) {
    this.names = { of: nameOf };
  }

  add(at: Instant, from: string, what: What, to: string): void {
    this.lines.push({ at, from, to, text: this.describe(what) });
    if (this.lines.length > MAX_LINES) this.lines.splice(0, this.lines.length - MAX_LINES);
  }

  /** The last `count` lines. */
  text(count = MAX_LINES): string {
    return this.lines
      .slice(-count)
      .map(
        ({ at, from, to, text }) => `${at.toFixed(2).padStart(12)}  ${from === to ? from : `${from} → ${to}`}: ${text}`,
      )
      .join('\n');
  }

  mermaid(count = 200): string {
    const lines = this.lines
      .slice(-count)
      .map(({ at, from, to, text }) =>
        from === to
          ? `  Note over ${from}: ${at.toFixed(1)} ${text.replaceAll(/[;#]/g, ' ')}`
          : `  ${from}->>${to}: ${at.toFixed(1)} ${text.replaceAll(/[;#]/g, ' ')}`,
      );
    return ['sequenceDiagram', ...lines].join('\n');
  }

  private describe(what: What): string {
    if (typeof what === 'string') return what;
    if (!('type' in what)) return `packet ${what.id} from ${what.source} to ${what.destination}`;
    switch (what.type) {
      case 'map-register':
      case 'map-notify':
      case 'map-reply':
        return `${what.type} ${mappingsOf(what)
          .map((m) => {
            const owner = m.owner === undefined ? 'nobody' : this.names.of(m.owner);
            const ended = isTarget(m)
              ? ' (target)'
              : m.ttl === 0
                ? ' (ended)'
                : m.action === 'no-action'
                  ? ''
                  : ` (${m.action})`;
            return `${short(eidKey(m.eid))}@${m.generation} ${owner}${ended}`;
          })
          .join(', ')}`;
      case 'map-request':
        return `${what.type} ${queriesOf(what)
          .map(({ eid, intent }) => `${short(eidKey(eid))} ${intent}`)
          .join(', ')}`;
      case 'peer-set':
        return `peer-set ${this.names.of(what.publicKey)} ${what.locators.map(({ address }) => address).join(' ')}`;
      case 'mapping-set': {
        const to = what.publicKey === undefined ? 'drop' : this.names.of(what.publicKey);
        return `mapping-set ${short(what.prefix)}@${what.generation} ${to}`;
      }
      case 'local-eid-set': {
        const from = what.redirectFrom === null ? '' : ` from ${this.names.of(what.redirectFrom)}`;
        return `local-eid-set ${what.prefix}@${what.generation}${from}${what.interface === null ? '' : ` ${what.interface}`}`;
      }
      case 'local-eid-remove': {
        const to = what.redirectTo === null ? '' : ` to ${this.names.of(what.redirectTo)}`;
        return `local-eid-remove ${what.prefix}@${what.generation}${to}`;
      }
      case 'mapping-remove':
        return `mapping-remove ${short(what.prefix)}`;
      case 'miss':
        return `miss ${what.eid} (${what.reason})`;
      case 'interface':
        return `interface ${what.name} ${what.up ? 'up' : 'down'}`;
      case 'peer-send':
      case 'peer-message': {
        const message = decodeLispMessage(Buffer.from(what.payload, 'base64'));
        return `${what.type} ${this.names.of(what.publicKey)}: ${this.describe(message)}`;
      }
      case 'unknown-peer':
      case 'peer-remove':
      case 'peer-moved':
      case 'conflict':
        return `${what.type} ${this.names.of(what.publicKey)}`;
      case 'locators':
        return `locators ${what.addresses.map(({ address }) => address).join(' ')}`;
      default:
        return what.type;
    }
  }
}

function short(text: string): string {
  return text
    .replace(/^\d+\//, '')
    .replace(/\/(32|128)$/, '')
    .replace('fd53:7461:7970:7574:', 'agent:');
}

const MAX_LINES = 5000;
