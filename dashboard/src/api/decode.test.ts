// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { decodeLosses, decodeMap, decodeTrace, decodeTraces } from './decode.ts';

const COUNTS = { total: 10, ok: 8, error: 1, fault: 1, throttle: 0 };
const LATENCY = { p50_ms: 1, p90_ms: 2, p99_ms: 3, mean_ms: 1.5 };

describe('the map', () => {
  test('gives a node without figures those of its calls', () => {
    const map = decodeMap({
      nodes: [
        { id: 'client', name: 'client', type: 'client', total: 0 },
        { id: 'web', name: 'web', type: 'unknown', ...COUNTS, latency: LATENCY },
      ],
      edges: [{ source: 'client', target: 'web', ...COUNTS, latency: LATENCY, proxy_ms: 0.4 }],
    });
    expect(map.nodes[0]).toMatchObject({ counts: COUNTS, latency: { p99: 3 } });
    expect(map.edges[0]).toMatchObject({ proxyMs: 0.4, latency: { mean: 1.5 } });
  });

  test('does not add quantiles of several callers up', () => {
    const edge = (source: string, mean: number): object => ({ source, target: 'db', ...COUNTS, latency: { p99_ms: 9, mean_ms: mean } });
    const map = decodeMap({ nodes: [{ id: 'db' }], edges: [edge('a', 1), edge('b', 3)] });
    expect(map.nodes[0]).toMatchObject({ id: 'db', counts: { total: 20 }, latency: { p99: null, mean: 2 } });
  });

  test('draws the ends of a call that are not listed', () => {
    const map = decodeMap({ nodes: [], edges: [{ source: 'a', target: 'b', ...COUNTS }] });
    expect(map.nodes.map(({ id }) => id)).toEqual(['a', 'b']);
  });
});

describe('traces', () => {
  test('carry their times in milliseconds', () => {
    const { traces, more } = decodeTraces({ traces: [{ id: 't', start: 1.5, duration_ms: 2, outcome: 'ok', worst: 'fault' }], more: true });
    expect(traces[0]).toMatchObject({ start: 1500, durationMs: 2, outcome: 'ok', worst: 'fault', service: 'unknown' });
    expect(more).toBe(true);
  });

  test('keep the microseconds of their spans', () => {
    const { spans } = decodeTrace({ id: 't', spans: [{ id: 'a', start_ns: '1763996400123456789', duration_ms: 0.25 }] });
    expect(spans[0]).toMatchObject({ start: 1_763_996_400_123.456, durationMs: 0.25, parent: null });
  });
});

test('nonsense of any shape is an empty answer, never an exception', () => {
  const nonsense = [null, undefined, 7, 'x', [], {}, { nodes: 'x', edges: 7, traces: {}, spans: null }, { nodes: [null, 7], edges: [[]], traces: [''], spans: [null] }];
  for (const answer of nonsense) {
    expect(decodeMap(answer)).toEqual({ nodes: [], edges: [], seen: null });
    expect(decodeTraces(answer).traces).toEqual([]);
    expect(() => decodeTrace(answer)).not.toThrow();
  }
});

test('losses are listed by door and reason, and doors without traffic left out', () => {
  const stats = {
    received: 5, stored: 2, rejected: 2, dropped: 1,
    sources: { xray_udp: { received: 5, stored: 2, rejected: { invalid: 2 }, dropped: { kernel: 1 } }, zipkin: { received: 0 } },
  };
  const losses = decodeLosses(stats, { rejects: [{ time: 1.5, source: 'xray_udp', reason: 'invalid', message: 'no newline', sample: '{' }] });
  expect(losses.doors).toEqual([
    { source: 'xray_udp', received: 5, stored: 2, lost: [{ reason: 'invalid', count: 2, told: true }, { reason: 'kernel', count: 1, told: false }] },
  ]);
  expect(losses.rejects[0]).toMatchObject({ at: 1500, message: 'no newline' });
  expect(decodeLosses(null, 7)).toMatchObject({ received: 0, doors: [], rejects: [] });
});
