// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { cutName } from './text.ts';

const within = (most: number) => (text: string) => [...text].length <= most;

test('a name that fits is left alone', () => {
  expect(cutName('catalog-v1', within(10))).toBe('catalog-v1');
});

test('a mesh prefix goes first, so that what differs is seen', () => {
  expect(cutName('storefront/catalog-v1', within(14))).toBe('…/catalog-v1');
});

test('a name that is itself too long is cut in its middle', () => {
  const [one, two] = ['recommendations-primary-v1', 'recommendations-primary-v2'].map((name) => cutName(name, within(14)));
  expect(one).toBe('recomme…ary-v1');
  expect(one).not.toBe(two);
});

test('no width at all still gives something', () => {
  expect(cutName('web', within(0))).toBe('w…');
  expect(cutName('/', within(0))).toBe('/…');
});
