// SPDX-License-Identifier: Apache-2.0
// One trace: its head line, the waterfall, and the chosen span beside it.
import { useCallback, useEffect, useMemo, useState, type ReactElement } from 'react';
import { askTrace } from '../api/client.ts';
import type { Trace } from '../api/types.ts';
import { usePoll } from '../api/use-poll.ts';
import { clock, duration, plural } from '../format.ts';
import { OUTCOMES } from '../outcome.ts';
import { Badge, Stat } from '../parts/figures.tsx';
import { Icon } from '../parts/icons.tsx';
import { Copy, Failed, Loading, Notice, StaleBanner } from '../parts/states.tsx';
import { leaveTrace, Link, useNav } from '../state/nav.tsx';
import { SpanPanel } from './span-panel.tsx';
import { extentOf, palette } from './timeline.ts';
import { flatten, foldable, grow, withoutProxies, type Branch } from './tree.ts';
import { Waterfall } from './waterfall.tsx';

/** Spans of one request arrive one after the other; after this nothing more is expected. */
const SETTLED_MS = 30_000;

export function TracePage({ id }: { id: string }): ReactElement {
  const [settled, setSettled] = useState(false);
  const poll = usePoll<Trace>({ subject: id, key: id, live: !settled, ask: (signal) => askTrace(id, signal) });
  const trace = poll.answer;
  useEffect(() => {
    setSettled(trace !== null && !trace.spans.some((span) => span.inProgress) && Date.now() - extentOf(trace.spans).end > SETTLED_MS);
  }, [trace]);
  return (
    <main className="page trace-page" id="main">
      {trace === null && poll.problem && (
        <>
          <BackLink />
          <Failed problem={poll.problem} retry={poll.refresh} />
        </>
      )}
      {trace === null && !poll.problem && <Loading what="trace" rows={12} />}
      {trace !== null && poll.problem && <StaleBanner problem={poll.problem} at={poll.at} retry={poll.refresh} />}
      {trace?.spans.length === 0 && (
        <>
          <BackLink />
          <Notice icon="list" title="This trace has no spans">
            <p>They may still be on their way; this page looks again every few seconds.</p>
          </Notice>
        </>
      )}
      {trace && trace.spans.length > 0 && <Shown key={trace.id} trace={trace} />}
    </main>
  );
}

function BackLink(): ReactElement {
  return (
    <Link className="back" change={leaveTrace('traces')}>
      <Icon name="back" size={15} /> Traces
    </Link>
  );
}

function Shown({ trace }: { trace: Trace }): ReactElement {
  const { state, go } = useNav();
  const [folded, setFolded] = useState<ReadonlySet<string>>(new Set());
  const extent = useMemo(() => extentOf(trace.spans), [trace]);
  const colours = useMemo(() => palette(trace.spans), [trace]);
  const roots = useMemo(() => grow(trace.spans), [trace]);
  const tree = useMemo(() => (state.noProxies ? withoutProxies(roots) : roots), [roots, state.noProxies]);
  const rows = useMemo(() => flatten(tree, folded), [tree, folded]);
  const chosen = useMemo(() => find(roots, state.span), [roots, state.span]);

  const select = useCallback((key: string) => go({ span: key }, 'quiet'), [go]);
  const fold = useCallback(
    (key: string, close: boolean) =>
      setFolded((last) => {
        const next = new Set(last);
        if (close) next.add(key);
        else next.delete(key);
        return next;
      }),
    [],
  );
  return (
    <div className="with-panel">
      <div className="trace-main">
        {trace.truncated && (
          <p className="problem cut">
            <Icon name="error" size={14} /> This trace has more spans than the collector keeps of one; the rest is missing here.
          </p>
        )}
        <Head trace={trace} roots={roots} lengthMs={extent.end - extent.start} />
        <div className="toolbar trace-tools">
          <Services colours={colours} />
          <span className="spacer" />
          {trace.spans.some(({ proxy }) => proxy) && (
            <label className="check">
              <input
                type="checkbox"
                checked={!state.noProxies}
                onChange={(event) => go({ noProxies: !event.target.checked }, 'quiet')}
              />
              Proxy spans
            </label>
          )}
          <button type="button" className="button" onClick={() => setFolded(new Set())} disabled={folded.size === 0}>
            Unfold all
          </button>
          <button type="button" className="button" onClick={() => setFolded(new Set(foldable(tree)))}>
            Fold all
          </button>
        </div>
        <Waterfall {...{ rows, extent, colours }} selected={chosen?.key ?? null} onSelect={select} onFold={fold} />
      </div>
      {chosen && (
        <SpanPanel branch={chosen} traceStart={extent.start} onClose={() => go({ span: null }, 'quiet')} onParent={select} />
      )}
    </div>
  );
}

function Head({ trace, roots, lengthMs }: { trace: Trace; roots: Branch[]; lengthMs: number }): ReactElement {
  const root = (roots.find(({ note }) => note === null) ?? roots[0])?.span;
  const services = new Set(trace.spans.map(({ service }) => service));
  const bad = OUTCOMES.filter((outcome) => outcome !== 'ok').map((outcome) => ({
    outcome,
    spans: trace.spans.filter((span) => span.outcome === outcome).length,
  }));
  return (
    <header className="trace-head">
      <BackLink />
      <h1>
        <span>{root?.service}</span> {root?.name}
      </h1>
      <p className="trace-id muted">
        <code>{trace.id}</code>
        <Copy text={trace.id} what="trace id" />
        <a href={new URL(`pillion/v1/traces/${encodeURIComponent(trace.id)}`, document.baseURI).href} target="_blank" rel="noreferrer">
          Raw JSON
        </a>
      </p>
      <dl className="stats">
        <Stat label="Began" value={root ? clock(root.start, Date.now()) : '–'} />
        <Stat label="Duration" value={duration(lengthMs)} />
        <Stat label="Spans" value={String(trace.spans.length)} />
        <Stat label="Services" value={String(services.size)} />
        <div className="stat">
          <dt>Failed spans</dt>
          <dd className="badges">
            {bad.every(({ spans }) => spans === 0) && <span className="figure">none</span>}
            {bad
              .filter(({ spans }) => spans > 0)
              .map(({ outcome, spans }) => (
                <Badge key={outcome} outcome={outcome} text={plural(spans, 'span')} />
              ))}
          </dd>
        </div>
      </dl>
    </header>
  );
}

function Services({ colours }: { colours: Map<string, number> }): ReactElement {
  return (
    <ul className="chips" aria-label="Services in this trace">
      {[...colours].slice(0, 12).map(([service, index]) => (
        <li key={service} className={`hue-${index % 8}`}>
          <span className="swatch" />
          {service}
        </li>
      ))}
      {colours.size > 12 && <li className="muted">and {colours.size - 12} more</li>}
    </ul>
  );
}

function find(roots: readonly Branch[], key: string | null): Branch | null {
  if (key === null) return null;
  const rows = flatten(roots, new Set());
  return rows.find(({ branch }) => branch.key === key)?.branch ?? null;
}
