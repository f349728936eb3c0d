// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { arcs, concern, NO_COUNTS, okShare, shares, split } from './outcome.ts';

test('throttles are taken out of the errors they are counted in, so that parts add up', () => {
  const counts = { total: 100, ok: 80, error: 15, fault: 5, throttle: 4 };
  expect(split(counts)).toEqual({ ok: 80, error: 11, throttle: 4, fault: 5 });
  expect(shares(counts).reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1);
});

test('one failure in a million is still an arc, and the ring closes', () => {
  const ring = arcs({ total: 1_000_000, ok: 999_999, error: 0, fault: 1, throttle: 0 });
  expect(ring.map(({ outcome }) => outcome)).toEqual(['ok', 'fault']);
  const fault = ring[1];
  expect((fault?.to ?? 0) - (fault?.from ?? 0)).toBeGreaterThan(0.03);
  expect(fault?.to).toBe(1);
});

test('the worst kind above a hundredth is what a card warns of', () => {
  expect(concern({ total: 100, ok: 90, error: 8, fault: 2, throttle: 0 })?.outcome).toBe('fault');
  expect(concern({ total: 1000, ok: 940, error: 58, fault: 2, throttle: 58 })?.outcome).toBe('throttle');
  expect(concern({ total: 1000, ok: 995, error: 3, fault: 2, throttle: 0 })).toBeNull();
});

test('no traffic is neither well nor ill', () => {
  expect(okShare(NO_COUNTS)).toBeNull();
  expect(arcs(NO_COUNTS)).toEqual([]);
  expect(concern(NO_COUNTS)).toBeNull();
});
