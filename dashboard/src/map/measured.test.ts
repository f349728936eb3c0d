// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import type { ServiceMap } from '../api/types.ts';
import { measuredSeconds } from './measured.ts';

const map = (first: number, last: number): ServiceMap => ({ nodes: [], edges: [], seen: { first, last } });
const WINDOW = { start: 1000, end: 1900 };

test('traffic that began a minute ago is averaged over that minute', () => {
  expect(measuredSeconds(map(1840, 1895), WINDOW)).toBe(55);
});

test('traffic that stopped long ago is averaged up to now', () => {
  expect(measuredSeconds(map(1100, 1200), WINDOW)).toBe(800);
});

test('a single call, an empty map and calls that began before the window give no nonsense', () => {
  expect(measuredSeconds(map(1899.9, 1899.9), WINDOW)).toBe(1);
  expect(measuredSeconds({ nodes: [], edges: [], seen: null }, WINDOW)).toBe(900);
  expect(measuredSeconds(map(900, 1900), WINDOW)).toBe(900);
  expect(measuredSeconds(null, WINDOW)).toBe(900);
});
