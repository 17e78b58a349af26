/** What a target can be tested as; apart from what that takes, which the command line loads only when it is needed. */
export const ROLES = ['map-server', 'xtr', 'dns', 'native'] as const;

export type Role = (typeof ROLES)[number];
