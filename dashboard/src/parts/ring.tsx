// SPDX-License-Identifier: Apache-2.0
// The ring of outcomes. Each kind has its own thickness and pattern as well as its colour (style sheet).
import type { ReactElement } from 'react';
import { arcs, type Counts } from '../outcome.ts';

const TURN = Math.PI * 2;

/** For use inside an SVG, centred on its origin. */
export function Ring({ counts, radius }: { counts: Counts; radius: number }): ReactElement {
  const parts = arcs(counts);
  const gap = parts.length > 1 ? 0.012 : 0;
  return (
    <g className="ring" aria-hidden="true">
      {parts.length === 0 && <circle className="ring-none" r={radius} />}
      {parts.map(({ outcome, from, to }) =>
        parts.length === 1 ? (
          <circle key={outcome} className={`arc arc-${outcome}`} r={radius} />
        ) : (
          <path key={outcome} className={`arc arc-${outcome}`} d={arcPath(radius, from + gap, to - gap)} />
        ),
      )}
    </g>
  );
}

function arcPath(radius: number, from: number, to: number): string {
  const at = (share: number): string =>
    `${round(radius * Math.sin(share * TURN))} ${round(-radius * Math.cos(share * TURN))}`;
  const end = Math.max(to, from + 0.004);
  return `M${at(from)}A${radius} ${radius} 0 ${end - from > 0.5 ? 1 : 0} 1 ${at(end)}`;
}

const round = (value: number): number => Math.round(value * 100) / 100;
