/** Who waits for an answer of the core: the command line and the resolver, each with a ticket. So many at most. */
import { StayputError } from '../../proto/errors.ts';
import type { Ticket } from '../core/map-requests.ts';
import type { AgentOutput, Answer } from '../core/output.ts';

export type AnswerOf<K extends Answer['kind']> = Extract<Answer, { readonly kind: K }>;

type CallerOutput = Extract<AgentOutput, { readonly to: 'caller' }>;

export class LimitError extends StayputError {}

export class FencedError extends StayputError {}

export class Callers {
  private readonly waiting = new Map<Ticket, { answer(answer: Answer): void; fail(error: Error): void }>();
  private lastTicket = 0;

  /** `act`: has the core answer this ticket. @throws LimitError, FencedError, and what `act` throws */
  ask<K extends Answer['kind']>(kind: K, act: (ticket: Ticket) => void): Promise<AnswerOf<K>> {
    if (this.waiting.size >= MAX_CALLERS) {
      return Promise.reject(new LimitError('STAYPUT_BUSY', 'too many requests at once; try again'));
    }
    const ticket = ++this.lastTicket as Ticket;
    return new Promise((resolve, reject) => {
      this.waiting.set(ticket, {
        answer: (answer) => {
          if (answer.kind === kind) resolve(answer as AnswerOf<K>);
        },
        fail: reject,
      });
      try {
        act(ticket);
      } catch (error) {
        this.waiting.delete(ticket);
        reject(error as Error);
      }
    });
  }

  answer({ ticket, answer }: CallerOutput): void {
    const caller = this.waiting.get(ticket);
    this.waiting.delete(ticket);
    caller?.answer(answer);
  }

  /** Nobody is answered any more. `fence`: why, in a line. */
  refuse(fence: string): void {
    for (const caller of this.waiting.values()) caller.fail(new FencedError('STAYPUT_FENCED', fence));
    this.waiting.clear();
  }
}

const MAX_CALLERS = 4096;
