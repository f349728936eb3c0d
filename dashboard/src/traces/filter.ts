// SPDX-License-Identifier: Apache-2.0
// Which traces a list shows, and how one is called. Pure.
import type { ServiceMap, TraceSummary } from '../api/types.ts';
import type { Outcome } from '../outcome.ts';
import type { Selection } from '../state/url.ts';

export interface Filter {
  /** Names as on the map. */
  service: string | null;
  callee: string | null;
  outcome: Outcome | null;
  find: string;
}

export function through(traces: readonly TraceSummary[], { service, callee, outcome, find }: Filter): TraceSummary[] {
  const wanted = find.trim().toLowerCase();
  return traces.filter(
    (trace) =>
      (service === null || trace.services.includes(service)) &&
      (callee === null || trace.services.includes(callee)) &&
      (outcome === null || trace.outcome === outcome || trace.worst === outcome) &&
      (wanted === '' || [trace.id, trace.name, trace.url ?? '', ...trace.services].some((text) => text.toLowerCase().includes(wanted))),
  );
}

/** The part of a filter that what is selected on the map stands for. Clients send no spans, so no trace names them. */
export function filterOf(map: ServiceMap, selection: Exclude<Selection, null>): Pick<Filter, 'service' | 'callee'> {
  const name = (id: string): string | null => {
    const node = map.nodes.find((one) => one.id === id);
    return node?.type === 'client' ? null : (node?.name ?? id);
  };
  if (selection.kind === 'node') return { service: name(selection.id), callee: null };
  const [caller, callee] = [name(selection.source), name(selection.target)];
  return caller === null ? { service: callee, callee: null } : { service: caller, callee };
}

const TRACE_ID = /^(?:[0-9a-f]{32}|1-[0-9a-f]{8}-[0-9a-f]{24})$/i;

/** A whole trace id, in either spelling, or null: typed into a search field it should open the trace. */
export function traceId(text: string): string | null {
  const id = text.trim();
  return TRACE_ID.test(id) ? id.toLowerCase() : null;
}

/** "GET /cart" where HTTP is known, else the root span's name. */
export function title(trace: Pick<TraceSummary, 'method' | 'url' | 'name'>): string {
  const path = trace.url === null ? null : pathOf(trace.url);
  if (path === null) return trace.name;
  return trace.method ? `${trace.method} ${path}` : path;
}

function pathOf(url: string): string {
  try {
    const { pathname, search } = new URL(url, 'http://relative');
    return `${pathname}${search}`;
  } catch {
    return url;
  }
}
