/** What a daemon finds when it looks at itself: the answer of `/readyz`. */

export interface ReadinessCheck {
  /** What was looked at: a word of docs/monitoring.md. */
  readonly name: string;
  /** `failed`: the daemon does not serve its purpose. `warning`: it does, and somebody should look. */
  readonly status: 'ok' | 'warning' | 'failed';
  /** In a line; of what is not ok the reason, with what to do. */
  readonly detail: string;
}

export function isReady(checks: readonly ReadinessCheck[]): boolean {
  return checks.every(({ status }) => status !== 'failed');
}
