// SPDX-License-Identifier: Apache-2.0
// The whole state of the screen as a query string and back, so that every view can be bookmarked and shared.
// Pure. Unknown or broken parameters fall back to the default: an old bookmark must still open.
import { OUTCOMES, type Outcome } from '../outcome.ts';

export type View = 'map' | 'traces' | 'trace' | 'losses';

export type Range = { kind: 'last'; minutes: number } | { kind: 'fixed'; start: number; end: number };

export type Selection = { kind: 'node'; id: string } | { kind: 'edge'; source: string; target: string } | null;

export interface State {
  view: View;
  range: Range;
  /** Epoch seconds at which a moving range was paused; null while live. */
  at: number | null;
  selection: Selection;
  /** The map shown as tables. */
  table: boolean;
  /** Sidecars shown as nodes of their own. */
  raw: boolean;
  find: string;
  trace: string | null;
  span: string | null;
  /** Waterfall without the sidecars' spans. */
  noProxies: boolean;
  /** Traces list: only traces through this service, or through this call. */
  service: string | null;
  callee: string | null;
  outcome: Outcome | null;
  limit: number;
}

export const DEFAULT_MINUTES = 5;
export const DEFAULT_LIMIT = 100;
const MOST_MINUTES = 31 * 24 * 60;
const MOST_TRACES = 1000;

export const DEFAULT: State = {
  view: 'map',
  range: { kind: 'last', minutes: DEFAULT_MINUTES },
  at: null,
  selection: null,
  table: false,
  raw: false,
  find: '',
  trace: null,
  span: null,
  noProxies: false,
  service: null,
  callee: null,
  outcome: null,
  limit: DEFAULT_LIMIT,
};

export function parse(search: string): State {
  const query = new URLSearchParams(search);
  const trace = query.get('trace');
  const view = query.get('view');
  return {
    view: view === 'traces' || view === 'losses' ? view : trace ? 'trace' : 'map',
    range: parseRange(query),
    at: positive(query.get('at')),
    selection: parseSelection(query),
    table: query.get('table') === '1',
    raw: query.get('raw') === '1',
    find: query.get('find') ?? '',
    trace: trace || null,
    span: query.get('span') || null,
    noProxies: query.get('proxies') === '0',
    service: query.get('service') || null,
    callee: query.get('callee') || null,
    outcome: OUTCOMES.find((outcome) => outcome === query.get('outcome')) ?? null,
    limit: Math.min(positive(query.get('limit')) ?? DEFAULT_LIMIT, MOST_TRACES),
  };
}

/** Only what differs from the default is written; the order is fixed, so equal states give equal addresses. */
export function write(state: State): string {
  const query = new URLSearchParams();
  if (state.view === 'traces' || state.view === 'losses') query.set('view', state.view);
  if (state.trace) query.set('trace', state.trace);
  if (state.span) query.set('span', state.span);
  if (state.range.kind === 'fixed') {
    query.set('start', String(state.range.start));
    query.set('end', String(state.range.end));
  } else {
    if (state.range.minutes !== DEFAULT_MINUTES) query.set('range', `${state.range.minutes}m`);
    if (state.at !== null) query.set('at', String(state.at));
  }
  if (state.selection?.kind === 'node') query.set('node', state.selection.id);
  if (state.selection?.kind === 'edge') {
    query.set('from', state.selection.source);
    query.set('to', state.selection.target);
  }
  if (state.table) query.set('table', '1');
  if (state.raw) query.set('raw', '1');
  if (state.find) query.set('find', state.find);
  if (state.noProxies) query.set('proxies', '0');
  if (state.service) query.set('service', state.service);
  if (state.callee) query.set('callee', state.callee);
  if (state.outcome) query.set('outcome', state.outcome);
  if (state.limit !== DEFAULT_LIMIT) query.set('limit', String(state.limit));
  const text = query.toString();
  return text === '' ? '' : `?${text}`;
}

function parseRange(query: URLSearchParams): Range {
  const start = positive(query.get('start'));
  const end = positive(query.get('end'));
  if (start !== null && end !== null && start < end) return { kind: 'fixed', start, end };
  const minutes = positive(/^(\d+)m$/.exec(query.get('range') ?? '')?.[1] ?? null);
  return { kind: 'last', minutes: Math.min(minutes ?? DEFAULT_MINUTES, MOST_MINUTES) };
}

function parseSelection(query: URLSearchParams): Selection {
  const node = query.get('node');
  if (node) return { kind: 'node', id: node };
  const source = query.get('from');
  const target = query.get('to');
  return source && target ? { kind: 'edge', source, target } : null;
}

function positive(text: string | null): number | null {
  if (text === null || !/^\d{1,12}$/.test(text)) return null;
  const value = Number(text);
  return value > 0 ? value : null;
}
