// SPDX-License-Identifier: Apache-2.0
// Where the arrow keys lead on the map. Pure.
import type { Places } from './layout.ts';

export type Direction = 'left' | 'right' | 'up' | 'down';

export const KEYS: Record<string, Direction> = {
  ArrowLeft: 'left',
  ArrowRight: 'right',
  ArrowUp: 'up',
  ArrowDown: 'down',
};

/** Right to the nearest callee, left to the nearest caller, up and down within the column; null at the border. */
export function step(
  from: string,
  direction: Direction,
  places: Places,
  edges: readonly { source: string; target: string }[],
): string | null {
  const here = places.get(from);
  if (!here) return null;
  const candidates =
    direction === 'right'
      ? edges.filter(({ source }) => source === from).map(({ target }) => target)
      : direction === 'left'
        ? edges.filter(({ target }) => target === from).map(({ source }) => source)
        : [...places.keys()].filter((id) => {
            const there = places.get(id);
            if (!there || there.column !== here.column) return false;
            return direction === 'up' ? there.y < here.y : there.y > here.y;
          });
  const distance = (id: string): number => Math.abs((places.get(id)?.y ?? 0) - here.y);
  const others = candidates.filter((id) => id !== from && places.has(id));
  others.sort((a, b) => distance(a) - distance(b) || (a < b ? -1 : 1));
  return others[0] ?? null;
}

/** Where Tab enters: the leftmost, topmost card. */
export function first(places: Places): string | null {
  const all = [...places].sort(([, a], [, b]) => a.column - b.column || a.y - b.y);
  return all[0]?.[0] ?? null;
}
