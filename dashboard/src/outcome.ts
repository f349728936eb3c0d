// SPDX-License-Identifier: Apache-2.0
// How calls ended, split into the four kinds the X-Ray console taught its users to look for.
// Pure; used by the map, the panels, the lists and the decoder. Knows no colours: style sheets do.

export type Outcome = 'ok' | 'error' | 'throttle' | 'fault';

/** Best to worst, which is also the order in which rings, bars and tables show them. */
export const OUTCOMES: readonly Outcome[] = ['ok', 'error', 'throttle', 'fault'];

export interface OutcomeText {
  label: string;
  detail: string;
}

/** Every colour has a word and a shape beside it: a second channel for whoever cannot tell the colours apart. */
export const OUTCOME_TEXT: Record<Outcome, OutcomeText> = {
  ok: { label: 'OK', detail: 'answered without error' },
  error: { label: '4xx', detail: 'the caller was at fault' },
  throttle: { label: '429', detail: 'refused because there were too many calls' },
  fault: { label: '5xx', detail: 'the service failed or did not answer' },
};

/** Counts as the collector reports them: `error` includes `throttle`, as X-Ray counts. */
export interface Counts {
  total: number;
  ok: number;
  error: number;
  fault: number;
  throttle: number;
}

export const NO_COUNTS: Counts = { total: 0, ok: 0, error: 0, fault: 0, throttle: 0 };

export type Split = Record<Outcome, number>;

/** The four kinds as parts that add up; throttles are taken out of the errors. */
export function split(counts: Counts): Split {
  const throttle = Math.min(counts.throttle, counts.error);
  return { ok: counts.ok, error: counts.error - throttle, throttle, fault: counts.fault };
}

export function add(left: Counts, right: Counts): Counts {
  return {
    total: left.total + right.total,
    ok: left.ok + right.ok,
    error: left.error + right.error,
    fault: left.fault + right.fault,
    throttle: left.throttle + right.throttle,
  };
}

export interface Share {
  outcome: Outcome;
  count: number;
  share: number;
}

/** Shares in ring order; an all-zero count has none. Shares are of the parts' sum, so a ring always closes. */
export function shares(counts: Counts): Share[] {
  const parts = split(counts);
  const sum = OUTCOMES.reduce((total, outcome) => total + parts[outcome], 0);
  if (sum <= 0) return [];
  return OUTCOMES.filter((outcome) => parts[outcome] > 0).map((outcome) => ({
    outcome,
    count: parts[outcome],
    share: parts[outcome] / sum,
  }));
}

/** What to warn about on a node or edge: the worst kind that at least one call in a hundred ended in. */
export function concern(counts: Counts, threshold = 0.01): Share | null {
  const worstFirst = shares(counts).reverse();
  return worstFirst.find(({ outcome, share }) => outcome !== 'ok' && share >= threshold) ?? null;
}

export function okShare(counts: Counts): number | null {
  const ok = shares(counts).find(({ outcome }) => outcome === 'ok');
  return shares(counts).length === 0 ? null : (ok?.share ?? 0);
}

export interface Arc extends Share {
  /** Fractions of the circle, clockwise from twelve o'clock. */
  from: number;
  to: number;
}

/** Ring arcs. A kind that happened at all is at least `floor` of the circle wide, or one bad call in a million would be invisible. */
export function arcs(counts: Counts, floor = 0.04): Arc[] {
  const parts = shares(counts);
  const widths = parts.map(({ share }) => Math.max(share, floor));
  const sum = widths.reduce((total, width) => total + width, 0);
  let from = 0;
  return parts.map((part, index) => {
    const to = index === parts.length - 1 ? 1 : from + (widths[index] ?? 0) / sum;
    const arc = { ...part, from, to };
    from = to;
    return arc;
  });
}
