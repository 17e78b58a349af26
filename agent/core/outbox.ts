/** What the parts of the agent's core want done, in the order in which they said it. */
import type { IpAddress } from '../../proto/address.ts';
import type { DataplaneCommand } from '../../proto/dataplane/messages.ts';
import type { LispMessage } from '../../proto/lisp/message.ts';
import type { LispPeer } from './lisp-responder.ts';
import type { Ticket } from './map-requests.ts';
import type { AgentOutput, Answer, Note, Persistent } from './output.ts';

export class Outbox {
  private readonly outputs: AgentOutput[] = [];
  private readonly queuedForDisk = new Set<Persistent>();

  get isEmpty(): boolean {
    return this.outputs.length === 0;
  }

  poll(): AgentOutput | undefined {
    const output = this.outputs.shift();
    if (output?.to === 'disk') this.queuedForDisk.delete(output.what);
    return output;
  }

  command(command: DataplaneCommand): void {
    this.outputs.push({ to: 'dataplane', command });
  }

  send(message: LispMessage): void {
    this.outputs.push({ to: 'map-server', message });
  }

  sendPlainly(peer: LispPeer, bytes: Uint8Array): void {
    this.outputs.push({ to: 'lisp-router', peer, bytes });
  }

  answer(ticket: Ticket, answer: Answer): void {
    this.outputs.push({ to: 'caller', ticket, answer });
  }

  note(note: Note): void {
    this.outputs.push({ to: 'operator', note });
  }

  /** Once, however often it is said before it is carried out. */
  persist(what: Persistent): void {
    if (this.queuedForDisk.has(what)) return;
    this.queuedForDisk.add(what);
    this.outputs.push({ to: 'disk', what });
  }

  addressesChanged(addresses: readonly IpAddress[]): void {
    this.outputs.push({ to: 'link', addresses });
  }
}
