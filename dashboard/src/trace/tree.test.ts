// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import type { Span } from '../api/types.ts';
import { barOf, extentOf, palette, ticks } from './timeline.ts';
import { flatten, foldable, grow, withoutProxies, type Branch } from './tree.ts';
import { keyAction } from './waterfall.tsx';

function span(id: string, parent: string | null, start: number, more: Partial<Span> = {}): Span {
  return {
    id,
    parent,
    name: id,
    service: 'web',
    kind: 'server',
    start,
    durationMs: 10,
    proxy: false,
    inProgress: false,
    outcome: 'ok',
    status: null,
    message: null,
    attributes: {},
    raw: {},
    ...more,
  };
}

/** "a(b c(d))" */
function draw(branches: readonly Branch[]): string {
  return branches
    .map(({ span: { id }, note, children }) => `${id}${note ? `!${note}` : ''}${children.length > 0 ? `(${draw(children)})` : ''}`)
    .join(' ');
}

describe('the tree', () => {
  test('is the same in whatever order spans arrive', () => {
    const spans = [span('a', null, 0), span('b', 'a', 1), span('c', 'a', 3), span('d', 'c', 4)];
    expect(draw(grow(spans))).toBe('a(b c(d))');
    expect(draw(grow([...spans].reverse()))).toBe('a(b c(d))');
  });

  test('keeps a span whose parent never arrived, at the top and marked', () => {
    expect(draw(grow([span('a', null, 0), span('x', 'lost', 2), span('y', 'x', 3)]))).toBe('a x!orphan(y)');
  });

  test('opens a circle at its earliest span and keeps every span once', () => {
    const tree = grow([span('a', null, 0), span('p', 'r', 5), span('q', 'p', 6), span('r', 'q', 7), span('s', 'q', 8)]);
    expect(draw(tree)).toBe('a p!circle(q(r s))');
    expect(draw(grow([span('me', 'me', 0)]))).toBe('me!circle');
  });

  test('keeps two spans of one id, with children below the first', () => {
    const tree = grow([span('a', null, 0), span('b', 'a', 1), span('b', 'a', 2, { kind: 'client' }), span('c', 'b', 3)]);
    expect(draw(tree)).toBe('a(b(c) b!double)');
    const keys = flatten(tree, new Set()).map(({ branch }) => branch.key);
    expect(new Set(keys).size).toBe(4);
  });

  test('starts siblings in order of time, the longer first', () => {
    const tree = grow([span('late', null, 5), span('short', null, 1), span('long', null, 1, { durationMs: 50 })]);
    expect(draw(tree)).toBe('long short late');
  });

  test('without proxies hangs what they carried below the nearest app span', () => {
    const proxy = { proxy: true };
    const tree = grow([span('g', null, 0, proxy), span('w', 'g', 1), span('e', 'w', 2, proxy), span('i', 'e', 3, proxy), span('c', 'i', 4)]);
    expect(draw(tree)).toBe('g(w(e(i(c))))');
    expect(draw(withoutProxies(tree))).toBe('w(c)');
  });

  test('ten thousand spans deep is drawn, not a stack overflow', () => {
    const spans = Array.from({ length: 10_000 }, (_, n) => span(`s${n}`, n === 0 ? null : `s${n - 1}`, n));
    const rows = flatten(grow(spans), new Set());
    expect(rows.length).toBe(10_000);
    expect(rows[0]?.below).toBe(9_999);
    expect(draw(withoutProxies(grow(spans.slice(0, 2))))).toBe('s0(s1)');
  });
});

describe('rows', () => {
  const tree = grow([span('a', null, 0), span('b', 'a', 1), span('c', 'b', 2), span('d', 'a', 3)]);

  test('below a folded span are hidden and counted', () => {
    const rows = flatten(tree, new Set(['b']));
    expect(rows.map(({ branch, depth, below }) => [branch.key, depth, below])).toEqual([['a', 0, 3], ['b', 1, 1], ['d', 1, 0]]);
    expect(foldable(tree)).toEqual(['a', 'b']);
  });

  test('answer the keys of a tree', () => {
    const rows = flatten(tree, new Set(['b']));
    const press = (key: string, at: number): unknown => keyAction(key, { rows, at, page: 10, active: rows[at] ?? flatten(tree, new Set())[0]! });
    expect(press('ArrowRight', 1)).toEqual({ fold: false });
    expect(press('ArrowLeft', 0)).toEqual({ fold: true });
    expect(press('ArrowLeft', 2)).toEqual({ move: 0 });
    expect(press('End', 0)).toEqual({ move: 2 });
    expect(press('Enter', 0)).toEqual({ open: true });
    expect(press('x', 0)).toBeNull();
  });
});

describe('the time axis', () => {
  test('reaches from the first start to the last end, also where a child began before its parent', () => {
    const spans = [span('a', null, 100, { durationMs: 5 }), span('b', 'a', 98, { durationMs: 30 })];
    expect(extentOf(spans)).toEqual({ start: 98, end: 128 });
    expect(extentOf([])).toEqual({ start: 0, end: 0 });
  });

  test('holds every bar whole', () => {
    const extent = { start: 0, end: 100 };
    expect(barOf({ start: 25, durationMs: 50 }, extent)).toEqual({ left: 0.25, width: 0.5 });
    expect(barOf({ start: 90, durationMs: 500 }, extent)).toEqual({ left: 0.9, width: 1 - 0.9 });
    expect(barOf({ start: 3, durationMs: 0 }, { start: 3, end: 3 })).toEqual({ left: 0, width: 1 });
  });

  test('is marked at round times', () => {
    expect(ticks(184.2, 5)).toEqual([0, 50, 100, 150]);
    expect(ticks(1, 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(ticks(0, 5)).toEqual([0]);
    expect(ticks(3_600_000, 5).length).toBeLessThan(9);
  });

  test('gives a service the same colour wherever it appears', () => {
    const spans = [span('a', null, 2, { service: 'cart' }), span('b', 'a', 1), span('c', 'a', 3)];
    expect([...palette(spans)]).toEqual([['web', 0], ['cart', 1]]);
  });
});
