// SPDX-License-Identifier: Apache-2.0
// What colours, thicknesses and signs mean.
import type { ReactElement } from 'react';
import { OUTCOMES, OUTCOME_TEXT } from '../outcome.ts';
import { Glyph, outcomeIcon } from '../parts/icons.tsx';

export function Legend(): ReactElement {
  return (
    <ul className="legend" aria-label="Legend">
      {OUTCOMES.map((outcome) => (
        <li key={outcome} title={OUTCOME_TEXT[outcome].detail}>
          <svg viewBox="-14 -14 28 28" width="22" height="22" aria-hidden="true">
            <circle className={`arc arc-${outcome}`} r="9.5" />
            <g className={`ink-${outcome}`}>
              <Glyph name={outcomeIcon(outcome)} size={9} />
            </g>
          </svg>
          {OUTCOME_TEXT[outcome].label}
        </li>
      ))}
    </ul>
  );
}
