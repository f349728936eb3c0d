// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { curves } from './curves.ts';
import { arrange, CARD, centreX, nearestFree, place, ROW, type Places } from './layout.ts';
import { ranks, type Topology } from './rank.ts';
import { first, step } from './step.ts';

const STORE: Topology = {
  nodes: ['client', 'gateway', 'web', 'catalog-v1', 'catalog-v2', 'cart', 'payments', 'orders'],
  edges: [
    ['client', 'gateway'],
    ['gateway', 'web'],
    ['web', 'catalog-v1'],
    ['web', 'catalog-v2'],
    ['web', 'cart'],
    ['web', 'payments'],
    ['cart', 'orders'],
  ],
};

const NOTHING: Places = new Map();

/** A repeatable stand-in for chance. */
function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296;
    return state / 4_294_967_296;
  };
}

function mesh(size: number, calls: number, seed: number): Topology {
  const roll = dice(seed);
  const nodes = Array.from({ length: size }, (_, n) => `s${n}`);
  const edges = Array.from({ length: calls }, (): [string, string] => [
    `s${Math.floor(roll() * size)}`,
    `s${Math.floor(roll() * size)}`,
  ]);
  return { nodes, edges };
}

function overlaps(places: Places): string[] {
  const columns = new Map<number, number[]>();
  for (const { column, y } of places.values()) columns.set(column, [...(columns.get(column) ?? []), y]);
  return [...columns].flatMap(([column, heights]) => {
    const sorted = [...heights].sort((a, b) => a - b);
    return sorted.flatMap((y, at) => (at > 0 && y - (sorted[at - 1] ?? 0) < CARD.height ? [`${column}: ${y}`] : []));
  });
}

describe('columns', () => {
  test('a service stands right of everything that calls it', () => {
    const column = ranks(STORE);
    for (const [source, target] of STORE.edges) expect(column.get(source)).toBeLessThan(column.get(target) ?? -1);
  });

  test('calls in a circle end, and only the closing call points backwards', () => {
    const column = ranks({ nodes: ['a', 'b', 'c'], edges: [['a', 'b'], ['b', 'c'], ['c', 'a']] });
    expect([...column]).toEqual([['a', 0], ['b', 1], ['c', 2]]);
  });

  test('a chain of twenty thousand services does not exhaust the stack', () => {
    const nodes = Array.from({ length: 20_000 }, (_, n) => `n${String(n).padStart(5, '0')}`);
    const edges = nodes.slice(1).map((id, n): [string, string] => [nodes[n] ?? '', id]);
    expect(ranks({ nodes, edges }).get('n19999')).toBe(19_999);
  });

  test('a service that calls itself or a stranger stands where it would without', () => {
    expect([...ranks({ nodes: ['a'], edges: [['a', 'a'], ['a', 'gone'], ['gone', 'a']] })]).toEqual([['a', 0]]);
  });
});

describe('places', () => {
  test('do not depend on the order of the answer', () => {
    const reversed = { nodes: [...STORE.nodes].reverse(), edges: [...STORE.edges].reverse() };
    expect(new Map([...arrange(reversed)].sort())).toEqual(new Map([...arrange(STORE)].sort()));
  });

  test('stay exactly as they were when a refresh brings the same services', () => {
    const before = place(STORE, NOTHING);
    expect(place(STORE, before)).toEqual(before);
  });

  test('of all others stay when a new service appears', () => {
    const before = place(STORE, NOTHING);
    const after = place({ nodes: [...STORE.nodes, 'search'], edges: [...STORE.edges, ['web', 'search']] }, before);
    for (const [id, at] of before) expect(after.get(id)).toEqual(at);
    expect(after.get('search')?.column).toBe(before.get('cart')?.column);
    expect(overlaps(after)).toEqual([]);
  });

  test('change only for services that a new call pushes to the right', () => {
    const before = place(STORE, NOTHING);
    const after = place({ ...STORE, edges: [...STORE.edges, ['cart', 'payments']] }, before);
    const moved = [...before].filter(([id, at]) => after.get(id)?.column !== at.column || after.get(id)?.y !== at.y);
    expect(moved.map(([id]) => id)).toEqual(['payments']);
  });

  test('never put one card on another, whatever the mesh', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const small = mesh(30, 60, seed);
      const large = mesh(45, 110, seed);
      const grown = { nodes: large.nodes, edges: [...small.edges, ...large.edges] };
      expect(overlaps(arrange(small))).toEqual([]);
      expect(overlaps(place(grown, place(small, NOTHING)))).toEqual([]);
    }
  });

  test('of a fan leave the caller level with the middle of what it calls', () => {
    const fan = arrange({ nodes: ['a', 'x', 'y', 'z'], edges: [['a', 'x'], ['a', 'y'], ['a', 'z']] });
    expect(fan.get('a')?.y).toBe(fan.get('y')?.y);
  });

  test('for five hundred services are found within the budget of the whole page', () => {
    // Processor time, for the machine may be busy with a build.
    const began = process.cpuUsage();
    const places = arrange(mesh(500, 1200, 7));
    const { user, system } = process.cpuUsage(began);
    expect(places.size).toBe(500);
    expect((user + system) / 1000).toBeLessThan(1000);
  });

  test('for a newcomer are the nearest free row', () => {
    expect(nearestFree(10, [0])).toBe(ROW);
    expect(nearestFree(-10, [0])).toBe(-ROW);
    expect(nearestFree(5, [])).toBe(5);
    expect(nearestFree(0, [0, ROW, -ROW])).toBe(-2 * ROW);
  });
});

describe('curves', () => {
  const [store] = [arrange(STORE)];

  test('are drawn for every call whose ends are on the map, in its order', () => {
    const drawn = curves([...STORE.edges, ['web', 'gone']], store);
    expect(drawn.map(({ source, target }) => [source, target])).toEqual(STORE.edges);
    for (const { path, label } of drawn) {
      expect(path).toMatch(/^M[-\d. C]+$/);
      expect(Number.isFinite(label.x) && Number.isFinite(label.y)).toBe(true);
    }
  });

  test('pass cards of columns they cross at a distance', () => {
    const places = arrange({ nodes: ['a', 'b', 'c'], edges: [['a', 'b'], ['b', 'c'], ['a', 'c']] });
    const long = curves([['a', 'c']], places)[0];
    const between = places.get('b');
    const heights = [...(long?.path ?? '').matchAll(/([-\d.]+) ([-\d.]+)/g)]
      .map(([, x, y]) => ({ x: Number(x), y: Number(y) }))
      .filter(({ x }) => Math.abs(x - centreX(between ?? { column: 1, y: 0 })) <= CARD.width / 2);
    expect(heights.length).toBeGreaterThan(0);
    for (const { y } of heights) expect(Math.abs(y - (between?.y ?? 0))).toBeGreaterThan(CARD.height / 2);
  });

  test('to oneself and backwards have a path too', () => {
    const places = arrange({ nodes: ['a', 'b'], edges: [['a', 'b'], ['b', 'a']] });
    for (const { path } of curves([['a', 'a'], ['b', 'a']], places)) expect(path).not.toContain('NaN');
  });
});

describe('arrow keys', () => {
  const places = arrange(STORE);
  const edges = STORE.edges.map(([source, target]) => ({ source, target }));

  test('follow calls to the right and callers to the left', () => {
    expect(step('gateway', 'right', places, edges)).toBe('web');
    expect(step('gateway', 'left', places, edges)).toBe('client');
    expect(step('client', 'left', places, edges)).toBeNull();
  });

  test('reach every card of a column by going down', () => {
    const column = [...places].filter(([, at]) => at.column === places.get('cart')?.column).sort(([, a], [, b]) => a.y - b.y);
    const ids = column.map(([id]) => id);
    ids.slice(1).forEach((id, n) => expect(step(ids[n] ?? '', 'down', places, edges)).toBe(id));
  });

  test('begin at the leftmost card', () => {
    expect(first(places)).toBe('client');
    expect(first(new Map())).toBeNull();
  });
});
