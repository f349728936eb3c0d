// SPDX-License-Identifier: Apache-2.0
// The shell: header, time, keys, and the only wiring of state, questions and screens.
import { useEffect, useMemo, useState, type ReactElement } from 'react';
import { askLosses, askMap, askTraces } from './api/client.ts';
import type { Losses, ServiceMap, TraceList } from './api/types.ts';
import { usePoll, type Poll } from './api/use-poll.ts';
import { ago, clock } from './format.ts';
import { LossesPage } from './losses/losses-page.tsx';
import { MapPage } from './map/map-page.tsx';
import { measuredSeconds } from './map/measured.ts';
import { Help } from './parts/help.tsx';
import { Icon } from './parts/icons.tsx';
import { TimePicker } from './parts/time-picker.tsx';
import { leaveTrace, Link, NavProvider, useNav } from './state/nav.tsx';
import type { State } from './state/url.ts';
import { useUrlState, type Go } from './state/use-url.ts';
import { isLive, windowOf } from './state/window.ts';
import { TracePage } from './trace/trace-page.tsx';
import { TracesPage } from './traces/traces-page.tsx';

export function App(): ReactElement {
  const [state, go] = useUrlState();
  const nav = useMemo(() => ({ state, go }), [state, go]);
  const live = isLive(state);
  const when = JSON.stringify([state.range, state.at]);
  const onMap = state.view === 'map';
  const map = usePoll<ServiceMap>({
    subject: onMap ? `map ${state.raw}` : 'none',
    key: when,
    live: live && onMap,
    ask: (signal) => (onMap ? askMap(windowOf(state, Date.now()), !state.raw, signal) : Promise.resolve(NO_MAP)),
  });
  const wantsTraces = state.view === 'traces' || (onMap && state.selection !== null);
  const traces = usePoll<TraceList>({
    subject: wantsTraces ? 'traces' : 'none',
    key: `${when} ${state.limit} ${state.view === 'traces' ? state.service : ''}`,
    live: live && wantsTraces,
    ask: (signal) => (wantsTraces ? askTraces(windowOf(state, Date.now()), state.limit, { service: state.view === 'traces' ? state.service : null }, signal) : Promise.resolve(NO_TRACES)),
  });
  const onLosses = state.view === 'losses';
  const losses = usePoll<Losses | null>({
    subject: onLosses ? 'losses' : 'none',
    key: '',
    live: live && onLosses,
    ask: (signal) => (onLosses ? askLosses(signal) : Promise.resolve(null)),
  });
  const shown = windowOf(state, Date.now());
  const current = onMap ? map : onLosses ? losses : traces;
  useTitle(state);
  const [help, setHelp] = useState(false);
  useKeys(state, go, current.refresh, () => setHelp(true));

  return (
    <NavProvider value={nav}>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <Header poll={current} onHelp={() => setHelp(true)} />
      {state.view === 'map' && <MapPage poll={map} traces={traces} seconds={measuredSeconds(map.answer, shown)} />}
      {state.view === 'traces' && <TracesPage poll={traces} />}
      {onLosses && <LossesPage poll={losses} />}
      {state.view === 'trace' && state.trace && <TracePage key={state.trace} id={state.trace} />}
      <Help open={help} close={() => setHelp(false)} />
    </NavProvider>
  );
}

const NO_MAP: ServiceMap = { nodes: [], edges: [], seen: null };
const NO_TRACES: TraceList = { traces: [], more: false };

function Header({ poll, onHelp }: { poll: Poll<unknown>; onHelp: () => void }): ReactElement {
  const { state } = useNav();
  return (
    <header className="top">
      <Link className="brand" change={leaveTrace('map')} title="Service map">
        <svg viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
          <rect className="brand-back" width="32" height="32" rx="9" />
          <circle className="brand-rider" cx="12.5" cy="16" r="6" />
          <circle className="brand-seat" cx="22.5" cy="16" r="3.5" />
        </svg>
        Pillion
      </Link>
      <nav aria-label="Screens">
        <Link change={leaveTrace('map')} current={state.view === 'map'}>
          Map
        </Link>
        <Link change={leaveTrace('traces')} current={state.view === 'traces' || state.view === 'trace'}>
          Traces
        </Link>
        <Link change={leaveTrace('losses')} current={state.view === 'losses'}>
          Losses
        </Link>
      </nav>
      <span className="spacer" />
      {state.view !== 'trace' && (
        <>
          <TimePicker />
          <Liveness poll={poll} />
        </>
      )}
      <button type="button" className="button quiet icon-only" onClick={onHelp} title="Keys (?)" aria-label="Keys">
        <Icon name="keyboard" />
      </button>
    </header>
  );
}

function Liveness({ poll }: { poll: Poll<unknown> }): ReactElement {
  const { state, go } = useNav();
  const now = useNow(1000);
  const live = isLive(state);
  const fixed = state.range.kind === 'fixed';
  const text = poll.problem
    ? 'Not updating'
    : !live
      ? fixed
        ? 'Fixed range'
        : `Paused at ${clock((state.at ?? 0) * 1000, now)}`
      : poll.at === null
        ? 'Loading'
        : `Live · ${ago(poll.at, now)}`;
  return (
    <div className="liveness">
      <span className={poll.problem ? 'pulse is-broken' : live ? 'pulse is-live' : 'pulse'} aria-hidden="true" />
      <span className="liveness-text figure">{text}</span>
      <button
        type="button"
        className="button quiet icon-only"
        disabled={fixed}
        aria-label={live ? 'Pause' : 'Resume'}
        title={live ? 'Pause (p)' : 'Resume (p)'}
        onClick={() => go({ at: live ? Math.ceil(Date.now() / 1000) : null })}
      >
        <Icon name={live ? 'pause' : 'play'} />
      </button>
      <button type="button" className="button quiet icon-only" aria-label="Refresh now" title="Refresh now (r)" onClick={poll.refresh}>
        <Icon name="refresh" size={17} />
      </button>
    </div>
  );
}

function useNow(everyMs: number): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

function useTitle(state: State): void {
  useEffect(() => {
    const part = state.view === 'trace' ? `Trace ${state.trace?.slice(0, 8)}` : state.view === 'traces' ? 'Traces' : state.view === 'losses' ? 'Losses' : 'Map';
    document.title = `${part} · Pillion`;
  }, [state.view, state.trace]);
}

function useKeys(state: State, go: Go, refresh: () => void, help: () => void): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target instanceof HTMLElement && event.target.matches('input, select, textarea');
      if (event.key === 'Escape') {
        if (typing && event.target instanceof HTMLElement) event.target.blur();
        else if (state.view === 'trace' && state.span) go({ span: null }, 'quiet');
        else if (state.view === 'map' && state.selection) go({ selection: null });
        return;
      }
      if (typing || document.querySelector('dialog[open]')) return;
      const action = actions(state, go, refresh, help)[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    window.addEventListener('keydown', press);
    return () => window.removeEventListener('keydown', press);
  }, [state, go, refresh, help]);
}

function actions(state: State, go: Go, refresh: () => void, help: () => void): Record<string, () => void> {
  return {
    m: () => go(leaveTrace('map')),
    t: () => go(leaveTrace('traces')),
    l: () => go(leaveTrace('losses')),
    r: refresh,
    p: () => {
      if (state.range.kind === 'last') go({ at: state.at === null ? Math.ceil(Date.now() / 1000) : null });
    },
    '/': () => document.querySelector<HTMLElement>('[data-find]')?.focus(),
    '?': help,
  };
}
