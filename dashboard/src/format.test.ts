// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { ago, count, duration, percent, rate } from './format.ts';

const plain = (text: string): string => text.replaceAll('\u202f', ' ');

test('durations take the unit that leaves two or three digits', () => {
  const cases: [number, string][] = [
    [0, '0 ms'],
    [0.0421, '42.1 µs'],
    [0.42, '0.42 ms'],
    [4.256, '4.26 ms'],
    [48, '48 ms'],
    [999.4, '999 ms'],
    [999.6, '1 s'],
    [12_340, '12.3 s'],
    [59_949, '59.9 s'],
    [60_000, '1 min'],
    [119_700, '2 min'],
    [125_000, '2 min 5 s'],
    [-3, '−3 ms'],
  ];
  for (const [ms, text] of cases) expect(plain(duration(ms))).toBe(text);
  expect(duration(null)).toBe('–');
  expect(duration(Number.NaN)).toBe('–');
});

test('a share never hides a failure nor rounds up to perfection', () => {
  expect(plain(percent(0))).toBe('0 %');
  expect(plain(percent(1))).toBe('100 %');
  expect(plain(percent(0.999_999))).toBe('>99.9 %');
  expect(plain(percent(0.000_001))).toBe('<0.1 %');
  expect(plain(percent(0.0214))).toBe('2.1 %');
  expect(percent(null)).toBe('–');
});

test('rates below one per second are told per minute', () => {
  expect(rate(9000, 300)).toBe('30/s');
  expect(rate(400, 300)).toBe('1.33/s');
  expect(rate(60, 300)).toBe('12/min');
  expect(rate(1, 3600)).toBe('<0.1/min');
  expect(rate(0, 300)).toBe('0/s');
  expect(rate(5, 0)).toBe('–');
});

test('counts are exact to ten thousand, then three digits', () => {
  expect(count(9_999)).toBe('9,999');
  expect(count(12_345)).toBe('12.3k');
  expect(count(999_999)).toBe('1M');
  expect(count(4_560_000)).toBe('4.56M');
});

test('ages grow coarser, and a clock ahead of ours is now', () => {
  const now = 1_000_000_000_000;
  expect(ago(now + 5_000, now)).toBe('just now');
  expect(ago(now - 42_000, now)).toBe('42 s ago');
  expect(ago(now - 185_000, now)).toBe('3 min ago');
  expect(ago(now - 7_300_000, now)).toBe('2 h ago');
});
