// SPDX-License-Identifier: Apache-2.0
// The latest traces of the time range, narrowed by service, outcome and text.
import { type FormEvent, type ReactElement } from 'react';
import type { TraceList, TraceSummary } from '../api/types.ts';
import type { Poll } from '../api/use-poll.ts';
import { ago, clock, count, duration, plural } from '../format.ts';
import { OUTCOMES, OUTCOME_TEXT } from '../outcome.ts';
import { Meter, TraceBadges } from '../parts/figures.tsx';
import { Icon } from '../parts/icons.tsx';
import { Failed, Loading, Notice, NoTraffic, StaleBanner } from '../parts/states.tsx';
import { Link, openTrace, useNav } from '../state/nav.tsx';
import { DEFAULT_LIMIT, type State } from '../state/url.ts';
import { through, title, traceId } from './filter.ts';

const MOST = 1000;

export function TracesPage({ poll }: { poll: Poll<TraceList> }): ReactElement {
  const { state, go } = useNav();
  const all = poll.answer && poll.answer.traces;
  const shown = all === null ? [] : through(all, state);
  return (
    <main className="page" id="main">
      <h1 className="hidden">Traces</h1>
      <Filters state={state} services={all ?? []} />
      {poll.problem && all !== null && <StaleBanner problem={poll.problem} at={poll.at} retry={poll.refresh} />}
      {all === null && poll.problem && <Failed problem={poll.problem} retry={poll.refresh} />}
      {all === null && !poll.problem && <Loading what="traces" rows={10} />}
      {all?.length === 0 && (
        <NoTraffic
          widen={state.range.kind === 'last' && state.range.minutes >= 60 ? null : () => go({ range: { kind: 'last', minutes: 60 }, at: null })}
        />
      )}
      {all && all.length > 0 && shown.length === 0 && (
        <Notice icon="search" title="No trace fits">
          <p>
            {plural(all.length, 'trace was', 'traces were')} looked through. Take a filter away, or look through more of them.
          </p>
          <button type="button" className="button" onClick={() => go(NO_FILTER)}>
            Clear filters
          </button>
        </Notice>
      )}
      {shown.length > 0 && <List traces={shown} busy={poll.stale} />}
      {poll.answer?.more && state.limit < MOST && (
        <p className="center">
          <button
            type="button"
            className="button"
            disabled={poll.busy && poll.stale}
            onClick={() => go({ limit: Math.min(MOST, state.limit + 2 * DEFAULT_LIMIT) }, 'quiet')}
          >
            Look further back
          </button>
        </p>
      )}
    </main>
  );
}

const NO_FILTER: Partial<State> = { find: '', service: null, callee: null, outcome: null };

function Filters({ state, services }: { state: State; services: TraceSummary[] }): ReactElement {
  const { go } = useNav();
  const names = [...new Set([...services.flatMap((trace) => trace.services), ...(state.service ? [state.service] : [])])].sort();
  const open = (event: FormEvent): void => {
    event.preventDefault();
    const id = traceId(state.find);
    if (id) go(openTrace(id));
  };
  return (
    <form className="toolbar" role="search" onSubmit={open}>
      <label className="field search">
        <Icon name="search" size={16} />
        <span className="hidden">Find in traces</span>
        <input
          type="search"
          data-find
          placeholder="Path, service, or trace id"
          value={state.find}
          onChange={(event) => go({ find: event.target.value }, 'quiet')}
        />
      </label>
      <label className="field">
        <span className="field-name">Service</span>
        <select value={state.service ?? ''} onChange={(event) => go({ service: event.target.value || null, callee: null })}>
          <option value="">all</option>
          {names.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      <div className="segments" role="group" aria-label="Outcome">
        <button type="button" aria-pressed={state.outcome === null} onClick={() => go({ outcome: null })}>
          All
        </button>
        {OUTCOMES.map((outcome) => (
          <button
            key={outcome}
            type="button"
            aria-pressed={state.outcome === outcome}
            title={OUTCOME_TEXT[outcome].detail}
            onClick={() => go({ outcome })}
          >
            {OUTCOME_TEXT[outcome].label}
          </button>
        ))}
      </div>
      {state.callee && (
        <button type="button" className="chip" onClick={() => go({ callee: null })} title="Remove this filter">
          <Icon name="arrow" size={14} /> {state.callee}
          <Icon name="close" size={12} />
        </button>
      )}
    </form>
  );
}

function List({ traces, busy }: { traces: TraceSummary[]; busy: boolean }): ReactElement {
  const now = Date.now();
  const longest = Math.max(...traces.map(({ durationMs }) => durationMs), 0.001);
  return (
    <div className={busy ? 'table-box is-stale' : 'table-box'}>
      <table className="table traces">
        <caption>
          Traces <span className="muted">{count(traces.length)}, newest first</span>
        </caption>
        <thead>
          <tr>
            <th scope="col">Request</th>
            <th scope="col">Outcome</th>
            <th scope="col" className="numeric">Duration</th>
            <th scope="col"><span className="hidden">Compared to the longest</span></th>
            <th scope="col" className="numeric">Spans</th>
            <th scope="col">Services</th>
            <th scope="col" className="numeric">Began</th>
          </tr>
        </thead>
        <tbody>
          {traces.map((trace) => (
            <tr key={trace.id}>
              <th scope="row">
                <Link className="row-link" change={openTrace(trace.id)} title={trace.id}>
                  <span className="request">{title(trace)}</span>
                </Link>
              </th>
              <td>
                <TraceBadges trace={trace} />
                {trace.partial && <span className="muted small"> in progress</span>}
              </td>
              <td className="numeric figure">{duration(trace.durationMs)}</td>
              <td className="meter-cell">
                <Meter className={`fill-${trace.outcome}`} share={trace.durationMs / longest} />
              </td>
              <td className="numeric figure">{trace.spans === null ? '–' : count(trace.spans)}</td>
              <td className="services" title={trace.services.join(', ')}>{trace.services.join(', ')}</td>
              <td className="numeric figure muted" title={new Date(trace.start).toISOString()}>
                {now - trace.start < 3_600_000 ? ago(trace.start, now) : clock(trace.start, now)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
