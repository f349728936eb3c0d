// SPDX-License-Identifier: Apache-2.0
// The service map as a drawing: pan, zoom, select, arrow keys. Figures come in, selections go out; it asks nothing.
import { useCallback, useEffect, useMemo, useRef, useState, type KeyboardEvent, type ReactElement } from 'react';
import type { ServiceMap } from '../api/types.ts';
import { Icon } from '../parts/icons.tsx';
import type { Selection } from '../state/url.ts';
import { bounds, curves } from './curves.ts';
import { centreX, type Places } from './layout.ts';
import { Legend } from './legend.tsx';
import { EdgeLabel, EdgeShape, NodeShape, type Emphasis } from './shape.tsx';
import { first, KEYS, step } from './step.ts';
import { useCamera, type CameraControl } from './use-camera.ts';
import { usePlaces } from './use-places.ts';

/** Below this scale small text is noise; the style sheet hides it. */
const READABLE = 0.5;
const NO_PLACES: Places = new Map();

interface Props {
  map: ServiceMap;
  seconds: number;
  selection: Selection;
  find: string;
  onSelect: (selection: Selection) => void;
}

export function MapView({ map, seconds, selection, find, onSelect }: Props): ReactElement {
  const svg = useRef<SVGSVGElement>(null);
  const { places, tidy } = usePlaces(map);
  const lines = useMemo(() => curves(map.edges.map(({ source, target }) => [source, target]), places), [map, places]);
  const box = useMemo(() => bounds(places.values()), [places]);
  const control = useCamera(svg, box);
  const [hovered, setHovered] = useState<string | null>(null);
  const emphasis = useMemo(() => emphases(map, selection, hovered, find), [map, selection, hovered, find]);
  const entry = selection?.kind === 'node' && places.has(selection.id) ? selection.id : first(places);

  const selectNode = useCallback((id: string) => onSelect({ kind: 'node', id }), [onSelect]);
  const selectEdge = useCallback(
    (source: string, target: string) => onSelect({ kind: 'edge', source, target }),
    [onSelect],
  );
  const latest = useRef({ places: NO_PLACES, map, reveal: control.reveal, covered: 0 });
  latest.current = { places, map, reveal: control.reveal, covered: selection === null ? 0 : panelWidth() };
  const key = useCallback(
    (event: KeyboardEvent, id: string) => {
      if (event.key === 'Enter' || event.key === ' ') {
        event.preventDefault();
        return selectNode(id);
      }
      const direction = KEYS[event.key];
      if (!direction) return;
      event.preventDefault();
      const next = step(id, direction, latest.current.places, latest.current.map.edges);
      const place = next === null ? undefined : latest.current.places.get(next);
      if (next === null || !place) return;
      svg.current?.querySelector<SVGElement>(`[data-node="${CSS.escape(next)}"] .node-hit`)?.focus();
      latest.current.reveal({ x: centreX(place), y: place.y }, latest.current.covered);
    },
    [selectNode],
  );

  useSelectedInView(selection, { places, control });

  const { x, y, scale, glide } = control.camera;
  const calls = map.edges.flatMap((edge, index) => {
    const curve = lines[index];
    return curve ? [{ edge, curve, seconds, emphasis: emphasis.edge(edge.source, edge.target), onSelect: selectEdge }] : [];
  });
  return (
    <div className="map">
      <svg
        ref={svg}
        className={scale < READABLE ? 'map-canvas is-far' : 'map-canvas'}
        role="group"
        aria-label="Service map. Arrow keys follow the calls, Enter opens a service."
        {...control.handlers}
        onClick={(event) => event.target === event.currentTarget && onSelect(null)}
      >
        <Markers />
        <g className={glide ? 'glide' : ''} style={{ transform: `translate(${x}px, ${y}px) scale(${scale})` }}>
          {calls.map((call) => (
            <EdgeShape key={`${call.edge.source}\n${call.edge.target}`} {...call} />
          ))}
          {calls.map((call) => (
            <EdgeLabel key={`${call.edge.source}\n${call.edge.target}`} {...call} />
          ))}
          {map.nodes.map((node) => {
            const place = places.get(node.id);
            return place ? (
              <NodeShape
                key={node.id}
                {...{ node, place, seconds }}
                emphasis={emphasis.node(node.id)}
                tabbable={node.id === entry}
                onSelect={selectNode}
                onKey={key}
                onHover={setHovered}
              />
            ) : null;
          })}
        </g>
      </svg>
      <div className="map-foot">
        <Legend />
        <Controls control={control} tidy={tidy} />
      </div>
    </div>
  );
}

/** The panel lies over the right side of a wide window and below the map in a narrow one (style sheet). */
function panelWidth(): number {
  return window.innerWidth > 900 ? 392 : 0;
}

/** Opening the panel must not hide what it is about; closing it restores the view of everything. */
function useSelectedInView(
  selection: Selection,
  { places, control }: { places: Places; control: CameraControl },
): void {
  const key = JSON.stringify(selection);
  const { reveal, fitAll, isFitted } = control;
  const before = useRef<string>('null');
  useEffect(() => {
    const known = places.size > 0;
    if (selection === null && before.current !== 'null' && isFitted()) fitAll();
    if (selection !== null && known) {
      const place = places.get(selection.kind === 'node' ? selection.id : selection.target);
      if (place) reveal({ x: centreX(place), y: place.y }, panelWidth());
    }
    before.current = key;
    // Only a new selection, or the first size known, moves the view; a refresh does not.
  }, [key, reveal, places.size > 0]);
}

function Controls({ control, tidy }: { control: CameraControl; tidy: () => void }): ReactElement {
  return (
    <div className="map-controls" role="group" aria-label="View">
      <button type="button" onClick={() => control.zoom(1.3)} title="Zoom in" aria-label="Zoom in">
        <Icon name="plus" />
      </button>
      <button type="button" onClick={() => control.zoom(1 / 1.3)} title="Zoom out" aria-label="Zoom out">
        <Icon name="minus" />
      </button>
      <button type="button" onClick={control.fitAll} title="Show all" aria-label="Show all">
        <Icon name="fit" />
      </button>
      <button
        type="button"
        onClick={() => {
          tidy();
          control.fitAll();
        }}
        title="Arrange anew"
        aria-label="Arrange anew"
      >
        <Icon name="tidy" />
      </button>
    </div>
  );
}

function Markers(): ReactElement {
  return (
    <defs>
      {(['ok', 'error', 'throttle', 'fault'] as const).map((tone) => (
        <marker
          key={tone}
          id={`head-${tone}`}
          className={`edge-head edge-${tone}`}
          viewBox="0 0 10 10"
          refX="3"
          refY="5"
          markerWidth="11"
          markerHeight="11"
          markerUnits="userSpaceOnUse"
          orient="auto"
        >
          <path d="M0 0.8 9.5 5 0 9.2Z" />
        </marker>
      ))}
    </defs>
  );
}

interface Emphases {
  node: (id: string) => Emphasis;
  edge: (source: string, target: string) => Emphasis;
}

/** The selected, what it calls and is called by, and everything else. A search dims what it does not name. */
function emphases(map: ServiceMap, selection: Selection, hovered: string | null, find: string): Emphases {
  const wanted = find.trim().toLowerCase();
  if (wanted !== '') {
    const hits = new Set(map.nodes.filter((node) => matches(node, wanted)).map(({ id }) => id));
    return {
      node: (id) => (selection?.kind === 'node' && selection.id === id ? 'selected' : hits.has(id) ? 'plain' : 'dim'),
      edge: (source, target) => (hits.has(source) && hits.has(target) ? 'plain' : 'dim'),
    };
  }
  const chosen = selection?.kind === 'node' && map.nodes.some(({ id }) => id === selection.id) ? selection.id : null;
  const centre = hovered ?? chosen;
  const call = selection?.kind === 'edge' && hovered === null ? selection : null;
  const near = new Set(
    call
      ? [call.source, call.target]
      : map.edges.flatMap(({ source, target }) => (source === centre || target === centre ? [source, target] : [])),
  );
  const quiet = centre === null && call === null;
  return {
    node: (id) => (id === chosen ? 'selected' : quiet ? 'plain' : near.has(id) || id === centre ? 'near' : 'dim'),
    edge: (source, target) => {
      if (call) return call.source === source && call.target === target ? 'selected' : 'dim';
      return quiet ? 'plain' : source === centre || target === centre ? 'near' : 'dim';
    },
  };
}

export function matches(node: { name: string; type: string }, wanted: string): boolean {
  return node.name.toLowerCase().includes(wanted) || node.type.toLowerCase().includes(wanted);
}
