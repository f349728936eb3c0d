// SPDX-License-Identifier: Apache-2.0
// The map screen: totals and tools above, the drawing or its tables, and details of what is selected beside it.
import { useCallback, type ReactElement } from 'react';
import type { ServiceMap, TraceList } from '../api/types.ts';
import type { Poll } from '../api/use-poll.ts';
import { percent, rate } from '../format.ts';
import { add, concern, NO_COUNTS, okShare } from '../outcome.ts';
import { Stat } from '../parts/figures.tsx';
import { Icon } from '../parts/icons.tsx';
import { Failed, Loading, NoTraffic, StaleBanner } from '../parts/states.tsx';
import { useNav } from '../state/nav.tsx';
import type { Selection, State } from '../state/url.ts';
import { filterOf, through } from '../traces/filter.ts';
import { MapTable } from './map-table.tsx';
import { MapView, matches } from './map-view.tsx';
import { Panel } from './panel.tsx';

interface Props {
  poll: Poll<ServiceMap>;
  traces: Poll<TraceList>;
  seconds: number;
}

export function MapPage({ poll, traces, seconds }: Props): ReactElement {
  const { state, go } = useNav();
  const map = poll.answer;
  const select = useCallback((selection: Selection) => go({ selection }), [go]);
  const shown = map && map.nodes.length > 0 ? map : null;
  const view = shown && { map: shown, seconds, selection: state.selection, find: state.find, onSelect: select };
  return (
    <main className="page map-page" id="main">
      <h1 className="hidden">Service map</h1>
      {(shown || state.raw) && <Tools map={map} seconds={seconds} />}
      {poll.problem && map !== null && <StaleBanner problem={poll.problem} at={poll.at} retry={poll.refresh} />}
      <div className={state.table ? 'with-panel' : 'with-panel is-over'}>
        <div className={map !== null && (poll.stale || poll.problem) ? 'map-main is-stale' : 'map-main'}>
          {map === null && poll.problem && <Failed problem={poll.problem} retry={poll.refresh} />}
          {map === null && !poll.problem && <Loading what="service map" />}
          {map !== null && !shown && (
            <NoTraffic
              widen={
                state.range.kind === 'last' && state.range.minutes >= 60
                  ? null
                  : () => go({ range: { kind: 'last', minutes: 60 }, at: null })
              }
            />
          )}
          {view && (state.table ? <MapTable {...view} /> : <MapView key={String(state.raw)} {...view} />)}
        </div>
        {shown && state.selection && (
          <Panel
            map={shown}
            selection={state.selection}
            seconds={seconds}
            traces={traces.answer && through(traces.answer.traces, { ...filterOf(shown, state.selection), outcome: null, find: '' })}
            filter={filterOf(shown, state.selection)}
            onSelect={select}
          />
        )}
      </div>
    </main>
  );
}

function Tools({ map, seconds }: { map: ServiceMap | null; seconds: number }): ReactElement {
  const { state, go } = useNav();
  const hit = (): void => {
    const wanted = state.find.trim().toLowerCase();
    const node = wanted === '' ? undefined : map?.nodes.find((one) => matches(one, wanted));
    if (node) go({ selection: { kind: 'node', id: node.id } });
  };
  return (
    <div className="toolbar">
      {map && <Totals map={map} seconds={seconds} />}
      <span className="spacer" />
      <form
        role="search"
        onSubmit={(event) => {
          event.preventDefault();
          hit();
        }}
      >
        <label className="field search">
          <Icon name="search" size={16} />
          <span className="hidden">Find a service</span>
          <input
            type="search"
            data-find
            placeholder="Find a service"
            value={state.find}
            onChange={(event) => go({ find: event.target.value }, 'quiet')}
          />
        </label>
      </form>
      <label className="check" title="Show each sidecar as a service of its own">
        <input type="checkbox" checked={state.raw} onChange={(event) => go({ raw: event.target.checked, selection: null })} />
        Sidecars
      </label>
      <Mode state={state} />
    </div>
  );
}

function Mode({ state }: { state: State }): ReactElement {
  const { go } = useNav();
  return (
    <div className="segments" role="group" aria-label="Show as">
      <button type="button" aria-pressed={!state.table} onClick={() => go({ table: false })}>
        <Icon name="map" size={15} /> Map
      </button>
      <button type="button" aria-pressed={state.table} onClick={() => go({ table: true })}>
        <Icon name="table" size={15} /> Table
      </button>
    </div>
  );
}

const AVERAGED = 'From outside, averaged from the first call in the time range';

/** What came in from outside: calls by clients, or where no client is known, everything that nobody on the map called. */
function Totals({ map, seconds }: { map: ServiceMap; seconds: number }): ReactElement {
  const clients = new Set(map.nodes.filter(({ type }) => type === 'client').map(({ id }) => id));
  const called = new Set(map.edges.map(({ target }) => target));
  const entries =
    clients.size > 0 ? map.edges.filter(({ source }) => clients.has(source)) : map.nodes.filter(({ id }) => !called.has(id));
  const counts = entries.reduce((sum, one) => add(sum, one.counts), NO_COUNTS);
  const bad = concern(counts);
  const services = map.nodes.length - clients.size;
  return (
    <dl className="stats inline" aria-label="Requests from outside">
      <Stat label="Services" value={String(services)} />
      <Stat label="Requests" value={rate(counts.total, seconds)} meaning={AVERAGED} />
      <Stat label="OK" value={percent(okShare(counts))} {...(bad ? { tone: bad.outcome } : {})} />
    </dl>
  );
}
