// SPDX-License-Identifier: Apache-2.0
// The collector's JSON as the types of `types.ts`. Pure. The only place that knows the answers' member names; a member
// that is missing or of another type becomes "unknown" rather than a broken screen: collector and page may differ in age.
import { add, NO_COUNTS, OUTCOMES, type Counts, type Outcome } from '../outcome.ts';
import type { DoorCounts, Latency, Losses, MapEdge, MapNode, Seen, ServiceMap, Span, Trace, TraceList, TraceSummary } from './types.ts';

type Members = Record<string, unknown>;

const members = (value: unknown): Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Members) : {};
const list = (value: unknown): Members[] => (Array.isArray(value) ? value.map(members) : []);
const text = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);
const number = (value: unknown): number | null => (typeof value === 'number' && Number.isFinite(value) ? value : null);

export function decodeMap(answer: unknown): ServiceMap {
  const { nodes, edges } = members(answer);
  const calls = list(edges).flatMap(decodeEdge);
  const services = list(nodes).flatMap((node) => decodeNode(node, calls));
  const known = new Set(services.map(({ id }) => id));
  // A call whose end is not listed is still traffic: draw the end rather than lose the call.
  for (const id of calls.flatMap(({ source, target }) => [source, target])) {
    if (known.has(id)) continue;
    known.add(id);
    services.push(withCalls({ id, name: id, type: 'unknown', inferred: true }, calls));
  }
  return { nodes: services, edges: calls, seen: seen([...list(nodes), ...list(edges)]) };
}

function seen(counted: readonly Members[]): Seen | null {
  const times = (name: string): number[] => counted.flatMap((one) => number(one[name]) ?? []);
  const [first, last] = [Math.min(...times('first_seen')), Math.max(...times('last_seen'))];
  return Number.isFinite(first) && Number.isFinite(last) ? { first, last } : null;
}

function decodeEdge(edge: Members): MapEdge[] {
  const [source, target] = [text(edge['source']), text(edge['target'])];
  if (!source || !target) return [];
  return [{ source, target, counts: counts(edge), latency: latency(edge), proxyMs: number(edge['proxy_ms']) }];
}

function decodeNode(node: Members, calls: readonly MapEdge[]): MapNode[] {
  const id = text(node['id']);
  if (!id) return [];
  const name = text(node['name']) ?? id;
  const plain = { id, name, type: text(node['type']) ?? 'unknown', inferred: node['inferred'] === true };
  const own = counts(node);
  return [own.total > 0 ? { ...plain, counts: own, latency: latency(node) } : withCalls(plain, calls)];
}

/** Figures for a node that has none of its own, from what it was called (or, for a client, what it called). */
function withCalls(node: Omit<MapNode, 'counts' | 'latency'>, calls: readonly MapEdge[]): MapNode {
  const into = calls.filter(({ target }) => target === node.id);
  const used = into.length > 0 ? into : calls.filter(({ source }) => source === node.id);
  const sum = used.reduce((total, one) => add(total, one.counts), NO_COUNTS);
  // Quantiles do not add up; of several callers only the mean can be told.
  const only = used.length === 1 ? used[0] : undefined;
  const weighted = used.reduce((total, one) => total + (one.latency.mean ?? 0) * one.counts.total, 0);
  const mean = sum.total > 0 ? weighted / sum.total : null;
  return { ...node, counts: sum, latency: only?.latency ?? { p50: null, p90: null, p99: null, mean } };
}

function counts(from: Members): Counts {
  const part = (name: string): number => number(from[name]) ?? 0;
  return { total: part('total'), ok: part('ok'), error: part('error'), fault: part('fault'), throttle: part('throttle') };
}

function latency(from: Members): Latency {
  const given = members(from['latency']);
  const quantile = (name: string): number | null => number(given[`${name}_ms`]);
  return { p50: quantile('p50'), p90: quantile('p90'), p99: quantile('p99'), mean: quantile('mean') };
}

export function decodeTraces(answer: unknown): TraceList {
  const { traces, more } = members(answer);
  return { traces: list(traces).flatMap(decodeSummary), more: more === true };
}

function decodeSummary(summary: Members): TraceSummary[] {
  const id = text(summary['id']);
  if (!id) return [];
  const services = Array.isArray(summary['services']) ? summary['services'].flatMap((name) => text(name) ?? []) : [];
  const outcome = outcomeOf(summary['outcome']);
  return [
    {
      id,
      start: (number(summary['start']) ?? 0) * 1000,
      durationMs: number(summary['duration_ms']) ?? 0,
      name: text(summary['name']) ?? 'unnamed',
      service: text(summary['root_service']) ?? services[0] ?? 'unknown',
      method: text(summary['method']),
      url: text(summary['url']),
      status: number(summary['status']),
      outcome,
      worst: summary['worst'] === undefined ? outcome : outcomeOf(summary['worst']),
      spans: number(summary['spans']),
      services,
      partial: summary['partial'] === true,
    },
  ];
}

export function decodeLosses(stats: unknown, rejects: unknown): Losses {
  const all = members(stats);
  const sum = (name: string): number => number(all[name]) ?? 0;
  const doors = Object.entries(members(all['sources'])).map(([source, value]) => {
    const door = members(value);
    const lost = (name: string, told: boolean): DoorCounts['lost'] =>
      Object.entries(members(door[name])).flatMap(([reason, count]) => (number(count) ? [{ reason, count: number(count) ?? 0, told }] : []));
    return {
      source,
      received: number(door['received']) ?? 0,
      stored: number(door['stored']) ?? 0,
      lost: [...lost('rejected', true), ...lost('dropped', false)],
    };
  });
  return {
    received: sum('received'),
    stored: sum('stored'),
    rejected: sum('rejected'),
    dropped: sum('dropped'),
    doors: doors.filter(({ received }) => received > 0),
    rejects: list(members(rejects)['rejects']).map((one) => ({
      at: (number(one['time']) ?? 0) * 1000,
      source: text(one['source']) ?? 'unknown',
      reason: text(one['reason']) ?? 'unknown',
      message: text(one['message']) ?? '',
      sample: text(one['sample']) ?? '',
    })),
  };
}

export function decodeTrace(answer: unknown): Trace {
  const { id, spans, truncated } = members(answer);
  return { id: text(id) ?? 'unknown', spans: list(spans).map(decodeSpan), truncated: truncated === true };
}

function decodeSpan(span: Members, index: number): Span {
  return {
    id: text(span['id']) ?? `unnamed-${index}`,
    parent: text(span['parent']),
    name: text(span['name']) ?? 'unnamed',
    service: text(span['service']) ?? text(span['node']) ?? 'unknown',
    kind: text(span['kind']) ?? 'internal',
    start: nanoseconds(span['start_ns']) ?? (number(span['start']) ?? 0) * 1000,
    durationMs: number(span['duration_ms']) ?? 0,
    proxy: span['proxy'] === true,
    inProgress: span['in_progress'] === true,
    outcome: outcomeOf(span['outcome']),
    status: number(span['status']),
    message: text(span['message']),
    attributes: members(span['attributes']),
    raw: span,
  };
}

/** A decimal string, for nanoseconds since the epoch exceed what a double holds; milliseconds keep their microseconds. */
function nanoseconds(value: unknown): number | null {
  return typeof value === 'string' && /^\d{1,20}$/.test(value) ? Number(BigInt(value) / 1000n) / 1000 : null;
}

function outcomeOf(value: unknown): Outcome {
  return OUTCOMES.find((outcome) => outcome === value) ?? 'ok';
}
