// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import type { ServiceMap, TraceSummary } from '../api/types.ts';
import { filterOf, through, title, traceId } from './filter.ts';

function summary(id: string, more: Partial<TraceSummary> = {}): TraceSummary {
  return {
    id,
    start: 0,
    durationMs: 1,
    name: 'GET /',
    service: 'gateway',
    method: 'GET',
    url: 'http://shop/',
    status: 200,
    outcome: 'ok',
    worst: 'ok',
    spans: 1,
    services: ['gateway', 'web'],
    partial: false,
    ...more,
  };
}

const ALL = { service: null, callee: null, outcome: null, find: '' };
const TRACES = [
  summary('1'),
  summary('2', { services: ['gateway', 'web', 'cart'], outcome: 'fault' }),
  summary('3', { services: ['gateway', 'web', 'cart', 'orders'], url: 'http://shop/Checkout' }),
];
const ids = (traces: TraceSummary[]): string => traces.map(({ id }) => id).join('');

test('every filter narrows, and together they narrow further', () => {
  expect(ids(through(TRACES, ALL))).toBe('123');
  expect(ids(through(TRACES, { ...ALL, service: 'cart' }))).toBe('23');
  expect(ids(through(TRACES, { ...ALL, service: 'cart', callee: 'orders' }))).toBe('3');
  expect(ids(through(TRACES, { ...ALL, outcome: 'fault' }))).toBe('2');
  expect(ids(through(TRACES, { ...ALL, find: ' checkout ' }))).toBe('3');
});

test('what failed inside is found although the caller saw success', () => {
  const recovered = summary('4', { worst: 'fault' });
  expect(ids(through([recovered], { ...ALL, outcome: 'fault' }))).toBe('4');
  expect(ids(through([recovered], { ...ALL, outcome: 'ok' }))).toBe('4');
});

test('a selection on the map names the traces through it, clients aside', () => {
  const counts = { total: 1, ok: 1, error: 0, fault: 0, throttle: 0 };
  const node = (id: string, name: string, type = 'unknown'): ServiceMap['nodes'][number] => ({
    id,
    name,
    type,
    inferred: false,
    counts,
    latency: { p50: 1, p90: 1, p99: 1, mean: 1 },
  });
  const map = { nodes: [node('c', 'client', 'client'), node('w (unknown)', 'web'), node('k', 'cart')], edges: [], seen: null };
  expect(filterOf(map, { kind: 'node', id: 'w (unknown)' })).toEqual({ service: 'web', callee: null });
  expect(filterOf(map, { kind: 'edge', source: 'w (unknown)', target: 'k' })).toEqual({ service: 'web', callee: 'cart' });
  expect(filterOf(map, { kind: 'edge', source: 'c', target: 'k' })).toEqual({ service: 'cart', callee: null });
  expect(filterOf(map, { kind: 'node', id: 'c' })).toEqual({ service: null, callee: null });
});

test('a service is matched by its whole name', () => {
  expect(through(TRACES, { ...ALL, service: 'car' })).toEqual([]);
});

test('a trace id typed into the search is known in both spellings', () => {
  expect(traceId(' 67432C1A8F0E4D6B9A1C2D3E4F506172 ')).toBe('67432c1a8f0e4d6b9a1c2d3e4f506172');
  expect(traceId('1-67432c1a-8f0e4d6b9a1c2d3e4f506172')).toBe('1-67432c1a-8f0e4d6b9a1c2d3e4f506172');
  expect(traceId('67432c1a')).toBeNull();
});

test('a request is called by method and path, anything else by its name', () => {
  expect(title(summary('1', { url: 'http://shop/cart?x=1' }))).toBe('GET /cart?x=1');
  expect(title(summary('1', { url: '/cart', method: null }))).toBe('/cart');
  expect(title(summary('1', { url: null, name: 'nightly job' }))).toBe('nightly job');
});
