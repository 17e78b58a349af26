/** All checks of the role `map-server`, in the order of the report. */
import type { Check } from '../check.ts';
import { authenticationChecks, replayChecks } from './authentication.ts';
import { encapsulatedChecks } from './encapsulated-requests.ts';
import { infoChecks } from './info.ts';
import { negativeChecks } from './negative.ts';
import { registrationChecks } from './registration.ts';
import { requestChecks } from './requests.ts';
import { robustnessChecks } from './robustness.ts';
import type { MapServerStage } from './stage.ts';
import { subscriptionChecks } from './subscriptions.ts';

export function mapServerChecks(): readonly Check<MapServerStage>[] {
  return [
    ...registrationChecks(),
    ...authenticationChecks(),
    ...replayChecks(),
    ...requestChecks(),
    ...encapsulatedChecks(),
    ...negativeChecks(),
    ...subscriptionChecks(),
    ...infoChecks(),
    ...robustnessChecks(),
  ];
}
