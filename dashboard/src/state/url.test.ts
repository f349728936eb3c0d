// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { DEFAULT, parse, write, type State } from './url.ts';
import { customRange, isLive, windowOf } from './window.ts';

const STATES: Record<string, State> = {
  'the first page': DEFAULT,
  'a paused map': { ...DEFAULT, range: { kind: 'last', minutes: 60 }, at: 1_763_996_400 },
  'a fixed range': { ...DEFAULT, range: { kind: 'fixed', start: 1_763_990_000, end: 1_763_996_400 } },
  'a selected service with an awkward name': { ...DEFAULT, selection: { kind: 'node', id: 'a/b & c=d?#é' } },
  'a selected call': { ...DEFAULT, selection: { kind: 'edge', source: 'web', target: 'payments' } },
  'the table of all sidecars, searched': { ...DEFAULT, table: true, raw: true, find: 'cat log' },
  'narrowed traces': { ...DEFAULT, view: 'traces', service: 'web', callee: 'cart', outcome: 'fault', limit: 300 },
  'a trace': { ...DEFAULT, view: 'trace', trace: '1-67432c1a-8f0e4d6b9a1c2d3e4f506172', span: 'a1#4', noProxies: true },
};

describe('the address', () => {
  for (const [name, state] of Object.entries(STATES)) {
    test(`brings back ${name}`, () => expect(parse(write(state))).toEqual(state));
  }

  test('of the first page is bare', () => expect(write(DEFAULT)).toBe(''));

  test('with nonsense in it opens the first page', () => {
    for (const search of ['?range=banana', '?at=-4', '?start=9&end=3', '?limit=NaN', '?outcome=great', '?from=web', '?%', '?view=cellar']) {
      expect(parse(search)).toEqual(DEFAULT);
    }
  });

  test('cannot ask for more than the screen can show', () => {
    expect(parse('?limit=999999').limit).toBe(1000);
    const { range } = parse('?range=99999999m');
    expect(range).toEqual({ kind: 'last', minutes: 31 * 24 * 60 });
  });
});

describe('the window', () => {
  const now = 1_763_996_400_500;

  test('moves while live and stands while paused', () => {
    expect(windowOf(DEFAULT, now)).toEqual({ start: 1_763_996_401 - 300, end: 1_763_996_401 });
    const paused = { ...DEFAULT, at: 1_763_000_000 };
    expect(windowOf(paused, now)).toEqual(windowOf(paused, now + 60_000));
    expect([isLive(DEFAULT), isLive(paused)]).toEqual([true, false]);
  });

  test('of a fixed range is the range', () => {
    const range = { kind: 'fixed', start: 10, end: 20 } as const;
    expect(windowOf({ range, at: null }, now)).toEqual({ start: 10, end: 20 });
    expect(isLive({ range, at: null })).toBe(false);
  });

  test('typed in by hand says which field is wrong', () => {
    expect(customRange('', '2026-11-24T10:00')).toEqual({ problem: expect.stringContaining('start') });
    expect(customRange('2026-11-24T10:00', 'soon')).toEqual({ problem: expect.stringContaining('end') });
    expect(customRange('2026-11-24T10:00', '2026-11-24T10:00')).toEqual({ problem: expect.stringContaining('before') });
    const good = customRange('2026-11-24T10:00', '2026-11-24T10:05');
    expect('start' in good && good.end - good.start).toBe(300);
  });
});
