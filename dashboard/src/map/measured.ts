// SPDX-License-Identifier: Apache-2.0
// Over how long the calls of a map were made: what rates are averaged over. Pure.
import type { ServiceMap } from '../api/types.ts';
import type { Window } from '../state/window.ts';

/** News younger than this is not all counted yet, so traffic that was seen so lately is taken to go on. */
const LAG_S = 60;

/**
 * Seconds from the first call in the window to its end. A system that was started a minute ago is as busy as it was in
 * that minute, not a fifteenth of it because fifteen minutes are shown.
 */
export function measuredSeconds(map: ServiceMap | null, window: Window): number {
  const whole = window.end - window.start;
  if (!map?.seen) return whole;
  const end = window.end - map.seen.last < LAG_S ? map.seen.last : window.end;
  return Math.min(whole, Math.max(1, end - Math.max(map.seen.first, window.start)));
}
