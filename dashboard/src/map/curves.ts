// SPDX-License-Identifier: Apache-2.0
// How calls are drawn between places: curves, the lanes long ones take past other cards, and where labels sit.
// Pure; works from places alone, so curves follow cards that kept their place and newcomers alike.
import { CARD, centreX, type Place, type Places } from './layout.ts';

export interface Point {
  x: number;
  y: number;
}

export interface Curve {
  source: string;
  target: string;
  /** SVG path data. */
  path: string;
  label: Point;
}

const HALF = CARD.width / 2;
const MARGIN = CARD.height / 2 + 12;
const LABEL = { width: 116, height: 40 };
/** Space for the arrow head before the card. */
const GAP = 7;

/** Of the cards in each column. */
type Heights = ReadonlyMap<number, readonly number[]>;

function heightsOf(places: Places): Heights {
  const heights = new Map<number, number[]>();
  for (const { column, y } of places.values()) {
    const known = heights.get(column);
    if (known) known.push(y);
    else heights.set(column, [y]);
  }
  return heights;
}

type Piece = readonly [Point, Point, Point, Point];

export function curves(edges: readonly (readonly [string, string])[], places: Places): Curve[] {
  const drawn = edges.filter(([source, target]) => places.has(source) && places.has(target));
  const port = ports(drawn, places);
  const heights = heightsOf(places);
  const labels = new Map<number, Point[]>();
  return drawn.map(([source, target], index) => {
    const [from, to] = [places.get(source) as Place, places.get(target) as Place];
    const pieces = trace(from, to, port.out[index] ?? 0, port.into[index] ?? 0, heights);
    // Labels of different gaps are too far apart to meet.
    const gap = Math.max(from.column, to.column);
    const taken = labels.get(gap) ?? [];
    const label = freeLabel(pieces, taken);
    taken.push(label);
    labels.set(gap, taken);
    return { source, target, path: pathOf(pieces), label };
  });
}

/** Calls leave and reach a card spread along its side in the order of their other ends, so that they fan out uncrossed. */
function ports(edges: readonly (readonly [string, string])[], places: Places): { out: number[]; into: number[] } {
  const side = (own: 0 | 1): number[] => {
    const groups = new Map<string, number[]>();
    edges.forEach((edge, index) => {
      const group = groups.get(edge[own]);
      if (group) group.push(index);
      else groups.set(edge[own], [index]);
    });
    const offsets = edges.map(() => 0);
    for (const group of groups.values()) {
      const other = (index: number): number => places.get(edges[index]?.[own === 0 ? 1 : 0] ?? '')?.y ?? 0;
      const step = Math.min(12, (CARD.height - 28) / group.length);
      group.sort((a, b) => other(a) - other(b) || a - b);
      group.forEach((index, at) => (offsets[index] = (at - (group.length - 1) / 2) * step));
    }
    return offsets;
  };
  return { out: side(0), into: side(1) };
}

function trace(from: Place, to: Place, out: number, into: number, heights: Heights): Piece[] {
  const start = { x: centreX(from) + HALF, y: from.y + out };
  const end = { x: centreX(to) - HALF - GAP, y: to.y + into };
  if (to.column <= from.column) return detour(start, end, from, to);
  const stops: Point[] = [start];
  for (let column = from.column + 1; column < to.column; column++) {
    const share = (column - from.column) / (to.column - from.column);
    const y = lane(start.y + (end.y - start.y) * share, heights.get(column) ?? []);
    const x = centreX({ column, y });
    stops.push({ x: x - HALF, y }, { x: x + HALF, y });
  }
  stops.push(end);
  return stops.slice(1).map((point, index) => bend(stops[index] ?? start, point));
}

/** Level where it leaves and where it arrives. */
function bend(a: Point, b: Point): Piece {
  const reach = (b.x - a.x) / 2;
  return [a, { x: a.x + reach, y: a.y }, { x: b.x - reach, y: b.y }, b];
}

/** A call backwards, or to itself: out on the right, round below or above, in on the left. */
function detour(start: Point, end: Point, from: Place, to: Place): Piece[] {
  const below = from.column === to.column && from.y > to.y ? Math.min : Math.max;
  const side = below === Math.max ? 1 : -1;
  const turn = below(from.y, to.y) + side * (CARD.height / 2 + 30);
  const middle = { x: (start.x + end.x) / 2, y: turn };
  return [
    [start, { x: start.x + 70, y: start.y }, { x: start.x + 40, y: turn }, middle],
    [middle, { x: end.x - 40, y: turn }, { x: end.x - 70, y: end.y }, end],
  ];
}

/** The height nearest to `wanted` at which a call passes a column without touching a card. */
function lane(wanted: number, cards: readonly number[]): number {
  const free = (y: number): boolean => cards.every((card) => Math.abs(card - y) >= MARGIN - 0.01);
  if (free(wanted)) return wanted;
  const candidates = cards.flatMap((y) => [y - MARGIN, y + MARGIN]);
  candidates.sort((a, b) => Math.abs(a - wanted) - Math.abs(b - wanted) || a - b);
  return candidates.find(free) ?? wanted;
}

/** On the curve, in the widest gap, and beside the labels that are there already if that can be had. */
function freeLabel(pieces: readonly Piece[], taken: readonly Point[]): Point {
  const last = pieces[pieces.length - 1] ?? pieces[0];
  if (!last) return { x: 0, y: 0 };
  const candidates = [0.5, 0.42, 0.58, 0.34, 0.66].map((t) => at(last, t));
  const clear = (point: Point): boolean =>
    taken.every((other) => Math.abs(other.x - point.x) >= LABEL.width || Math.abs(other.y - point.y) >= LABEL.height);
  return candidates.find(clear) ?? candidates[0] ?? { x: 0, y: 0 };
}

export function at([a, b, c, d]: Piece, t: number): Point {
  const s = 1 - t;
  const mix = (p: number, q: number, r: number, u: number): number =>
    s * s * s * p + 3 * s * s * t * q + 3 * s * t * t * r + t * t * t * u;
  return { x: mix(a.x, b.x, c.x, d.x), y: mix(a.y, b.y, c.y, d.y) };
}

function pathOf(pieces: readonly Piece[]): string {
  const text = ({ x, y }: Point): string => `${round(x)} ${round(y)}`;
  const first = pieces[0];
  if (!first) return '';
  return `M${text(first[0])}${pieces.map(([, b, c, d]) => `C${text(b)} ${text(c)} ${text(d)}`).join('')}`;
}

const round = (value: number): number => Math.round(value * 10) / 10;

/** The rectangle around all cards, for fitting the view. */
export function bounds(places: Iterable<Place>): { x: number; y: number; width: number; height: number } {
  const all = [...places];
  const xs = all.map(centreX);
  const ys = all.map((place) => place.y);
  const [left, right] = [Math.min(...xs) - HALF, Math.max(...xs) + HALF];
  const [top, bottom] = [Math.min(...ys) - CARD.height / 2, Math.max(...ys) + CARD.height / 2];
  return all.length === 0 ? { x: 0, y: 0, width: 1, height: 1 } : { x: left, y: top, width: right - left, height: bottom - top };
}
