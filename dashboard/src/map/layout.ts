// SPDX-License-Identifier: Apache-2.0
// Where each service stands on the map. Layered left to right; what has a place keeps it, so a refresh never
// moves what the eye has learned. Pure; `map-view` remembers the result. Curves between the places: `curves.ts`.
import { neighbours, normalise, ranks, type Topology } from './rank.ts';

export const CARD = { width: 204, height: 76 };
export const COLUMN = CARD.width + 140;
export const ROW = CARD.height + 40;
/** What a call that passes a column takes of its height. */
const LANE = 28;
/** Longer calls get no lane of their own: in a mesh so deep that there are many, lanes would outnumber the cards. */
const MOST_LANES = 6;
const SWEEPS = 12;

export interface Place {
  column: number;
  /** Centre of the card. */
  y: number;
}

export type Places = ReadonlyMap<string, Place>;

export const centreX = (place: Place): number => place.column * COLUMN;

/**
 * Places for everything in `topology`. A service whose column is still right keeps its place; newcomers take the
 * free place nearest to their neighbours. When most of the map is new there is nothing to keep and all is arranged.
 */
export function place(topology: Topology, previous: Places): Places {
  const normal = normalise(topology);
  const column = ranks(normal);
  const kept = new Map<string, Place>();
  for (const id of normal.nodes) {
    const before = previous.get(id);
    if (before && before.column === column.get(id)) kept.set(id, before);
  }
  if (kept.size * 2 < normal.nodes.length) return arrange(normal);
  const newcomers = normal.nodes
    .filter((id) => !kept.has(id))
    .sort((a, b) => (column.get(a) ?? 0) - (column.get(b) ?? 0) || (a < b ? -1 : 1));
  const { out, into } = neighbours(normal);
  for (const id of newcomers) {
    const near = [...(into.get(id) ?? []), ...(out.get(id) ?? [])].flatMap((other) => kept.get(other)?.y ?? []);
    const wanted = near.length > 0 ? near.reduce((sum, y) => sum + y, 0) / near.length : 0;
    const own = column.get(id) ?? 0;
    const taken = [...kept.values()].filter((other) => other.column === own).map((other) => other.y);
    kept.set(id, { column: own, y: nearestFree(wanted, taken) });
  }
  return kept;
}

/** The height nearest to `wanted` that is a whole row away from everything in `taken`. */
export function nearestFree(wanted: number, taken: readonly number[]): number {
  const free = (y: number): boolean => taken.every((other) => Math.abs(other - y) >= ROW - 0.01);
  const candidates = [wanted, ...taken.flatMap((y) => [y + ROW, y - ROW])].filter(free);
  candidates.sort((a, b) => Math.abs(a - wanted) - Math.abs(b - wanted) || a - b);
  return candidates[0] ?? wanted;
}

interface Item {
  id: string;
  column: number;
  height: number;
  y: number;
  before: Item[];
  after: Item[];
}

/** All places from nothing. Same services and calls give the same places, in whatever order they came. */
export function arrange(topology: Topology): Places {
  const columns = itemise(normalise(topology));
  order(columns);
  straighten(columns);
  const places = new Map<string, Place>();
  for (const item of columns.flat()) if (item.height === ROW) places.set(item.id, { column: item.column, y: item.y });
  return places;
}

/** Cards and, for calls that pass columns, lanes in each column passed. */
function itemise(topology: Topology): Item[][] {
  const column = ranks(topology);
  const columns: Item[][] = [];
  const make = (id: string, at: number, height: number): Item => {
    const item: Item = { id, column: at, height, y: 0, before: [], after: [] };
    (columns[at] ??= []).push(item);
    return item;
  };
  const cards = new Map(topology.nodes.map((id) => [id, make(id, column.get(id) ?? 0, ROW)]));
  for (const [source, target] of topology.edges) {
    const [from, to] = [cards.get(source), cards.get(target)];
    if (!from || !to || from.column >= to.column) continue;
    if (to.column - from.column - 1 > MOST_LANES) continue;
    let last = from;
    for (let at = from.column + 1; at < to.column; at++) {
      last = join(last, make(`${source}\n${target}`, at, LANE));
    }
    join(last, to);
  }
  return columns;
}

function join(before: Item, after: Item): Item {
  before.after.push(after);
  after.before.push(before);
  return after;
}

/** Barycentre sweeps, left to right and back, keeping the order with the fewest crossings. */
function order(columns: Item[][]): void {
  let best = columns.map((items) => [...items]);
  let fewest = Number.POSITIVE_INFINITY;
  for (let sweep = 0; sweep <= SWEEPS && fewest > 0; sweep++) {
    for (const items of columns) items.forEach((item, index) => (item.y = index));
    const now = crossings(columns);
    if (now < fewest) {
      fewest = now;
      best = columns.map((items) => [...items]);
    }
    const forward = sweep % 2 === 0;
    for (const items of forward ? columns : [...columns].reverse()) {
      const centre = new Map(items.map((item) => [item, mean(forward ? item.before : item.after) ?? item.y]));
      items.sort((a, b) => (centre.get(a) ?? 0) - (centre.get(b) ?? 0));
      items.forEach((item, index) => (item.y = index));
    }
  }
  columns.forEach((_, at) => (columns[at] = best[at] ?? []));
}

function mean(items: readonly Item[]): number | null {
  return items.length === 0 ? null : items.reduce((sum, item) => sum + item.y, 0) / items.length;
}

function crossings(columns: readonly Item[][]): number {
  let sum = 0;
  for (const items of columns) {
    const ends = items.flatMap((item) => item.after.map((next) => next.y).sort((a, b) => a - b));
    sum += inversions(ends);
  }
  return sum;
}

/** Pairs out of order, counted while merging. */
function inversions(values: number[]): number {
  if (values.length < 2) return 0;
  const middle = values.length >> 1;
  const [left, right] = [values.slice(0, middle), values.slice(middle)];
  let sum = inversions(left) + inversions(right);
  let [i, j] = [0, 0];
  for (let at = 0; at < values.length; at++) {
    const [a, b] = [left[i], right[j]];
    if (b === undefined || (a !== undefined && a <= b)) {
      values[at] = a ?? 0;
      i++;
    } else {
      values[at] = b;
      sum += left.length - i;
      j++;
    }
  }
  return sum;
}

/** Heights: each item as near to its neighbours' mean as order and spacing allow. */
function straighten(columns: Item[][]): void {
  for (const items of columns) spread(items, items.map(() => 0));
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const forward = sweep % 2 === 1;
    for (const items of forward ? columns : [...columns].reverse()) {
      const side = (item: Item): Item[] => (forward ? item.before : item.after);
      spread(items, items.map((item) => mean(side(item)) ?? mean([...item.before, ...item.after]) ?? item.y));
    }
  }
}

/** Least squares under "in order, and at least so far apart": isotonic regression by pooling neighbours. */
function spread(items: readonly Item[], wanted: readonly number[]): void {
  let offset = 0;
  const offsets = items.map((item, index) => {
    if (index > 0) offset += (item.height + (items[index - 1]?.height ?? 0)) / 2;
    return offset;
  });
  const pools: { sum: number; size: number }[] = [];
  items.forEach((_, index) => {
    let pool = { sum: (wanted[index] ?? 0) - (offsets[index] ?? 0), size: 1 };
    for (let last = pools.at(-1); last && last.sum / last.size > pool.sum / pool.size; last = pools.at(-1)) {
      pool = { sum: pool.sum + last.sum, size: pool.size + last.size };
      pools.pop();
    }
    pools.push(pool);
  });
  let index = 0;
  for (const pool of pools) {
    for (let n = 0; n < pool.size; n++, index++) {
      const item = items[index];
      if (item) item.y = Math.round(pool.sum / pool.size + (offsets[index] ?? 0));
    }
  }
}
