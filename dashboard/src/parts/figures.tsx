// SPDX-License-Identifier: Apache-2.0
// Figures that several screens show alike: outcome badges, the breakdown by outcome, latency quantiles.
import type { ReactElement } from 'react';
import type { Latency, TraceSummary } from '../api/types.ts';
import { count, duration, percent } from '../format.ts';
import { OUTCOMES, OUTCOME_TEXT, shares, split, type Counts, type Outcome } from '../outcome.ts';
import { Icon, outcomeIcon } from './icons.tsx';

export function Badge({ outcome, text }: { outcome: Outcome; text?: string }): ReactElement {
  return (
    <span className={`badge badge-${outcome}`}>
      <Icon name={outcomeIcon(outcome)} size={12} />
      {text ?? OUTCOME_TEXT[outcome].label}
    </span>
  );
}

/** How the caller fared; and what went wrong inside where the caller did not notice. */
export function TraceBadges({ trace }: { trace: TraceSummary }): ReactElement {
  const hidden = OUTCOMES.indexOf(trace.worst) > OUTCOMES.indexOf(trace.outcome);
  return (
    <span className="badges">
      <Badge outcome={trace.outcome} text={String(trace.status ?? OUTCOME_TEXT[trace.outcome].label)} />
      {hidden && (
        <span className={`ink-${trace.worst}`} title={`${OUTCOME_TEXT[trace.worst].label} inside, not passed on to the caller`}>
          <Icon name={outcomeIcon(trace.worst)} size={13} />
          <span className="hidden">{OUTCOME_TEXT[trace.worst].label} inside</span>
        </span>
      )}
    </span>
  );
}

/** One line per outcome; those that did not happen are listed too, so that the eye finds each at its place. */
export function Breakdown({ counts }: { counts: Counts }): ReactElement {
  const parts = split(counts);
  const share = new Map(shares(counts).map((part) => [part.outcome, part.share]));
  return (
    <table className="breakdown">
      <caption className="hidden">Outcomes</caption>
      <thead className="hidden">
        <tr>
          <th scope="col">Outcome</th>
          <th scope="col">Share</th>
          <th scope="col">Calls</th>
        </tr>
      </thead>
      <tbody>
        {OUTCOMES.map((outcome) => (
          <tr key={outcome} className={parts[outcome] === 0 ? 'never' : ''} title={OUTCOME_TEXT[outcome].detail}>
            <th scope="row">
              <span className={`ink-${outcome}`}>
                <Icon name={outcomeIcon(outcome)} size={13} />
              </span>
              {OUTCOME_TEXT[outcome].label}
            </th>
            <td className="breakdown-share">
              <Meter className={`fill-${outcome}`} share={share.get(outcome) ?? 0} />
              <span className="figure">{percent(share.get(outcome) ?? 0)}</span>
            </td>
            <td className="figure">{count(parts[outcome])}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Drawn with SVG so that no inline style is needed. A share above zero is never invisible. */
export function Meter({ share, className }: { share: number; className: string }): ReactElement {
  const width = share <= 0 ? 0 : Math.max(1.5, share * 100);
  return (
    <svg className="meter" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
      <rect className="meter-track" width="100" height="6" />
      <rect className={className} width={width} height="6" />
    </svg>
  );
}

const QUANTILES = [
  ['p50', 'half of all calls were faster'],
  ['p90', 'nine in ten were faster'],
  ['p99', 'ninety-nine in a hundred were faster'],
  ['mean', 'average of all calls'],
] as const;

export function Quantiles({ latency }: { latency: Latency }): ReactElement {
  return (
    <dl className="quantiles">
      {QUANTILES.map(([name, meaning]) => (
        <div key={name} title={meaning}>
          <dt>{name}</dt>
          <dd className="figure">{duration(latency[name])}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Stat(props: { label: string; value: string; tone?: Outcome; meaning?: string }): ReactElement {
  const { label, value, tone, meaning } = props;
  return (
    <div className="stat" title={meaning}>
      <dt>{label}</dt>
      <dd className={tone ? `figure ink-${tone}` : 'figure'}>{value}</dd>
    </div>
  );
}
