// SPDX-License-Identifier: Apache-2.0
// Remembers where everything was, for as long as the page is open: a service that falls silent and comes back stands
// where it stood, and a column does not move because a call was missing for one refresh.
import { useCallback, useMemo, useRef, useState } from 'react';
import type { ServiceMap } from '../api/types.ts';
import { place, type Places } from './layout.ts';

interface Memory {
  nodes: Set<string>;
  edges: Map<string, readonly [string, string]>;
  places: Places;
}

/** More than any mesh shows; beyond it the memory starts anew, so that a page left open for weeks stays small. */
const MOST_REMEMBERED = 5_000;

const nothing = (): Memory => ({ nodes: new Set(), edges: new Map(), places: new Map() });

export function usePlaces(map: ServiceMap): { places: Places; tidy: () => void } {
  const memory = useRef(nothing());
  const [round, setRound] = useState(0);

  const places = useMemo(() => {
    const known = memory.current;
    if (known.nodes.size > MOST_REMEMBERED) Object.assign(known, nothing());
    for (const { id } of map.nodes) known.nodes.add(id);
    for (const { source, target } of map.edges) known.edges.set(`${source}\n${target}`, [source, target]);
    known.places = place({ nodes: [...known.nodes], edges: [...known.edges.values()] }, known.places);
    const present = new Set(map.nodes.map(({ id }) => id));
    return new Map([...known.places].filter(([id]) => present.has(id)));
    // `round` forgets everything.
  }, [map, round]);

  const tidy = useCallback(() => {
    memory.current = nothing();
    setRound((n) => n + 1);
  }, []);

  return { places, tidy };
}
