// SPDX-License-Identifier: Apache-2.0
// One service card and one call of the map, as SVG. Drawn only again when their own figures change.
import { memo, type KeyboardEvent, type ReactElement } from 'react';
import type { MapEdge, MapNode } from '../api/types.ts';
import { duration, percent, rate } from '../format.ts';
import { concern, okShare, OUTCOME_TEXT, type Share } from '../outcome.ts';
import { Glyph, outcomeIcon, typeIcon, typeText } from '../parts/icons.tsx';
import { Ring } from '../parts/ring.tsx';
import type { Curve } from './curves.ts';
import { CARD, centreX, type Place } from './layout.ts';
import { cutName, widthOf } from './text.ts';

export type Emphasis = 'plain' | 'selected' | 'near' | 'dim';

const [HALF, TOP] = [CARD.width / 2, CARD.height / 2];
const NAME_WIDTH = CARD.width - 76 - 10;

interface NodeProps {
  node: MapNode;
  place: Place;
  seconds: number;
  emphasis: Emphasis;
  tabbable: boolean;
  onSelect: (id: string) => void;
  onKey: (event: KeyboardEvent, id: string) => void;
  onHover: (id: string | null) => void;
}

export const NodeShape = memo(function NodeShape(props: NodeProps): ReactElement {
  const { node, place, seconds, emphasis } = props;
  // A client's failures are the failures of what it called; said once is enough.
  const bad = node.type === 'client' ? null : concern(node.counts);
  const name = cutName(node.name, (text) => widthOf(text, 'name') <= NAME_WIDTH);
  const quantile = node.latency.p99 ?? node.latency.mean;
  const latency = `${node.latency.p99 === null ? 'mean' : 'p99'} ${duration(quantile)}`;
  return (
    <g
      className={`node is-${emphasis}`}
      data-node={node.id}
      transform={`translate(${centreX(place)} ${place.y})`}
      onClick={() => props.onSelect(node.id)}
      onPointerEnter={() => props.onHover(node.id)}
      onPointerLeave={() => props.onHover(null)}
    >
      {name !== node.name && <title>{node.name}</title>}
      <rect className="card" x={-HALF} y={-TOP} width={CARD.width} height={CARD.height} rx={16} />
      <g transform={`translate(${-HALF + 39} 0)`}>
        <Ring counts={node.counts} radius={23} />
        <g className="node-icon">
          <Glyph name={typeIcon(node.type)} size={20} />
        </g>
      </g>
      <g aria-hidden="true">
        <text className="node-name" x={-HALF + 76} y={-12}>
          {name}
        </text>
        <text className="node-rate figure" x={-HALF + 76} y={8}>
          {rate(node.counts.total, seconds)}
        </text>
        <text className="node-latency figure" x={-HALF + 76} y={25}>
          {node.type === 'client' ? typeText(node.type) : latency}
        </text>
      </g>
      {bad && <Mark share={bad} x={HALF - 14} y={-TOP} anchor="end" />}
      {/* The control proper: its label says all of the above in words, which drawn text would run together. */}
      <rect
        className="node-hit"
        x={-HALF}
        y={-TOP}
        width={CARD.width}
        height={CARD.height}
        rx={16}
        role="button"
        tabIndex={props.tabbable ? 0 : -1}
        aria-pressed={emphasis === 'selected'}
        aria-label={nodeLabel(node, seconds)}
        onKeyDown={(event) => props.onKey(event, node.id)}
      />
    </g>
  );
});

interface EdgeProps {
  edge: MapEdge;
  curve: Curve;
  seconds: number;
  emphasis: Emphasis;
  onSelect: (source: string, target: string) => void;
}

export const EdgeShape = memo(function EdgeShape({ edge, curve, seconds, emphasis, onSelect }: EdgeProps): ReactElement {
  const bad = concern(edge.counts);
  const tone = bad?.outcome ?? 'ok';
  const width = 1.4 + Math.min(2.6, Math.log10(1 + edge.counts.total / seconds) * 1.3);
  return (
    <g
      className={`edge is-${emphasis} edge-${tone}`}
      data-edge={`${edge.source} ${edge.target}`}
      onClick={() => onSelect(edge.source, edge.target)}
    >
      <title>{`${edge.source} calls ${edge.target}`}</title>
      <path className="edge-hit" d={curve.path} />
      <path className="edge-line" d={curve.path} strokeWidth={width} markerEnd={`url(#head-${tone})`} />
      <path className="edge-flow" d={curve.path} />
    </g>
  );
});

/** Drawn after all lines, so that no line crosses a label. */
export const EdgeLabel = memo(function EdgeLabel({ edge, curve, seconds, emphasis, onSelect }: EdgeProps): ReactElement {
  const bad = concern(edge.counts);
  const quantile = edge.latency.p99 ?? edge.latency.mean;
  const parts = [rate(edge.counts.total, seconds), ...(quantile === null ? [] : [duration(quantile)])];
  const text = parts.join(' · ');
  const width = widthOf(text, 'figure') + 18;
  return (
    <g
      className={`edge-label is-${emphasis}`}
      data-label={`${edge.source} ${edge.target}`}
      transform={`translate(${curve.label.x} ${curve.label.y})`}
      onClick={() => onSelect(edge.source, edge.target)}
    >
      <title>{edgeLabel(edge, seconds)}</title>
      <rect className="pill" x={-width / 2} y={-10} width={width} height={20} rx={10} />
      <text className="figure" textAnchor="middle" y={4}>
        {text}
      </text>
      {bad && <Mark share={bad} x={0} y={18} anchor="middle" />}
    </g>
  );
});

/** Share, word and sign of the worst outcome. */
function Mark({ share, x, y, anchor }: { share: Share; x: number; y: number; anchor: 'middle' | 'end' }): ReactElement {
  const text = `${percent(share.share)} ${OUTCOME_TEXT[share.outcome].label}`;
  const width = widthOf(text, 'mark') + 30;
  const left = anchor === 'end' ? x - width : x - width / 2;
  return (
    <g className={`mark mark-${share.outcome}`} aria-hidden="true" transform={`translate(${left} ${y - 10})`}>
      <rect width={width} height={19} rx={9.5} />
      <g transform="translate(13 9.5)">
        <Glyph name={outcomeIcon(share.outcome)} size={11} />
      </g>
      <text className="figure" x={22} y={13.5}>
        {text}
      </text>
    </g>
  );
}

function figures(map: Pick<MapNode, 'counts' | 'latency'>, seconds: number): string {
  const bad = concern(map.counts);
  const parts = [rate(map.counts.total, seconds), `${percent(okShare(map.counts))} OK`];
  if (bad) parts.push(`${percent(bad.share)} ${OUTCOME_TEXT[bad.outcome].label}`);
  if (map.latency.p99 !== null) parts.push(`p99 ${duration(map.latency.p99)}`);
  return parts.join(', ');
}

export const nodeLabel = (node: MapNode, seconds: number): string =>
  `${node.name}, ${typeText(node.type)}, ${figures(node, seconds)}`;

export const edgeLabel = (edge: MapEdge, seconds: number): string =>
  `${edge.source} calls ${edge.target}: ${figures(edge, seconds)}`;
