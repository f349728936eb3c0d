// SPDX-License-Identifier: Apache-2.0
// What is known about the selected service or call: rates, outcomes, latency, neighbours and recent traces.
import type { ReactElement, ReactNode } from 'react';
import type { MapEdge, MapNode, ServiceMap, TraceSummary } from '../api/types.ts';
import { ago, count, duration, percent, rate } from '../format.ts';
import { concern, okShare } from '../outcome.ts';
import { Badge, Breakdown, Quantiles, Stat, TraceBadges } from '../parts/figures.tsx';
import { Icon, typeIcon, typeText } from '../parts/icons.tsx';
import { Ring } from '../parts/ring.tsx';
import { Link, openTrace } from '../state/nav.tsx';
import type { Selection } from '../state/url.ts';
import { title } from '../traces/filter.ts';

interface Props {
  map: ServiceMap;
  selection: Exclude<Selection, null>;
  seconds: number;
  traces: TraceSummary[] | null;
  /** What names those traces in the list of all. */
  filter: { service: string | null; callee: string | null };
  onSelect: (selection: Selection) => void;
}

export function Panel(props: Props): ReactElement {
  const { map, selection, onSelect } = props;
  const name = (id: string): string => map.nodes.find((node) => node.id === id)?.name ?? id;
  const node = selection.kind === 'node' ? map.nodes.find(({ id }) => id === selection.id) : undefined;
  const edge =
    selection.kind === 'edge'
      ? map.edges.find(({ source, target }) => source === selection.source && target === selection.target)
      : undefined;
  const label = selection.kind === 'node' ? name(selection.id) : `${name(selection.source)} to ${name(selection.target)}`;
  return (
    <aside className="panel" aria-label={`Details of ${label}`}>
      <header className="panel-head">
        {selection.kind === 'node' ? (
          <NodeHead name={name(selection.id)} node={node} />
        ) : (
          <EdgeHead selection={selection} name={name} onSelect={onSelect} />
        )}
        <button type="button" className="button quiet icon-only" onClick={() => onSelect(null)} aria-label="Close details" title="Close (Esc)">
          <Icon name="close" />
        </button>
      </header>
      <div className="panel-body" tabIndex={0} role="region" aria-label={`Figures of ${label}`}>
        {node || edge ? (
          <Figures of={node ?? (edge as MapEdge)} seconds={props.seconds} />
        ) : (
          <p className="muted">No traffic in this time range. Choose a longer one, or close this panel.</p>
        )}
        {node && <Neighbours node={node} map={map} seconds={props.seconds} name={name} onSelect={onSelect} />}
        <Recent traces={props.traces} filter={props.filter} />
      </div>
    </aside>
  );
}

function NodeHead({ name, node }: { name: string; node: MapNode | undefined }): ReactElement {
  return (
    <>
      <svg className="panel-ring" viewBox="-32 -32 64 64" width="56" height="56" aria-hidden="true">
        {node && <Ring counts={node.counts} radius={25} />}
      </svg>
      <div className="panel-title">
        <h2>{name}</h2>
        <p className="muted with-icon">
          <Icon name={typeIcon(node?.type ?? '')} size={15} />
          {typeText(node?.type ?? '')}
          {node?.inferred && ' · seen only by its callers'}
        </p>
      </div>
    </>
  );
}

function EdgeHead(props: {
  selection: { source: string; target: string };
  name: (id: string) => string;
  onSelect: (selection: Selection) => void;
}): ReactElement {
  const end = (id: string): ReactElement => (
    <button type="button" className="end-link" onClick={() => props.onSelect({ kind: 'node', id })}>
      {props.name(id)}
    </button>
  );
  return (
    <div className="panel-title">
      <h2 className="ends">
        {end(props.selection.source)}
        <Icon name="arrow" size={16} />
        <span className="hidden">calls</span>
        {end(props.selection.target)}
      </h2>
      <p className="muted">Calls as the caller saw them</p>
    </div>
  );
}

function Figures({ of, seconds }: { of: MapNode | MapEdge; seconds: number }): ReactElement {
  const bad = concern(of.counts);
  const proxyMs = 'proxyMs' in of ? of.proxyMs : null;
  return (
    <>
      <dl className="stats">
        <Stat label="Rate" value={rate(of.counts.total, seconds)} meaning="Averaged from the first call in the time range" />
        <Stat label="Calls" value={count(of.counts.total)} />
        <Stat label="OK" value={percent(okShare(of.counts))} {...(bad ? { tone: bad.outcome } : {})} />
      </dl>
      <Section title="Outcomes">
        <Breakdown counts={of.counts} />
      </Section>
      <Section title="Latency">
        <Quantiles latency={of.latency} />
        {proxyMs !== null && (
          <p className="muted small">
            of which on the way, in sidecars and network, on average: <span className="figure">{duration(proxyMs)}</span>
          </p>
        )}
      </Section>
    </>
  );
}

function Section({ title: heading, children }: { title: ReactNode; children: ReactNode }): ReactElement {
  return (
    <section className="panel-section">
      <h3>{heading}</h3>
      {children}
    </section>
  );
}

function Neighbours(props: {
  node: MapNode;
  map: ServiceMap;
  seconds: number;
  name: (id: string) => string;
  onSelect: (selection: Selection) => void;
}): ReactElement {
  const { node, map, seconds, name, onSelect } = props;
  const lists = [
    { heading: 'Called by', calls: map.edges.filter(({ target }) => target === node.id), other: 'source' },
    { heading: 'Calls', calls: map.edges.filter(({ source }) => source === node.id), other: 'target' },
  ] as const;
  return (
    <>
      {lists
        .filter(({ calls }) => calls.length > 0)
        .map(({ heading, calls, other }) => (
          <Section key={heading} title={heading}>
            <ul className="neighbours">
              {[...calls]
                .sort((a, b) => b.counts.total - a.counts.total || name(a[other]).localeCompare(name(b[other])))
                .map((edge) => (
                  <li key={edge[other]}>
                    <button type="button" onClick={() => onSelect({ kind: 'edge', source: edge.source, target: edge.target })}>
                      <span className="grow">{name(edge[other])}</span>
                      <Concern edge={edge} />
                      <span className="figure">{rate(edge.counts.total, seconds)}</span>
                      <span className="figure muted wide">{duration(edge.latency.p99 ?? edge.latency.mean)}</span>
                    </button>
                  </li>
                ))}
            </ul>
          </Section>
        ))}
    </>
  );
}

function Concern({ edge }: { edge: MapEdge }): ReactElement | null {
  const bad = concern(edge.counts);
  return bad && <Badge outcome={bad.outcome} text={percent(bad.share)} />;
}

function Recent({ traces, filter }: Pick<Props, 'traces' | 'filter'>): ReactElement {
  return (
    <Section title="Recent traces">
      {traces === null && <div className="skeleton" />}
      {traces?.length === 0 && <p className="muted">None among the latest traces of this time range.</p>}
      {traces && traces.length > 0 && (
        <>
          <ul className="recent">
            {traces.slice(0, 8).map((trace) => (
              <li key={trace.id}>
                <Link change={openTrace(trace.id)}>
                  <TraceBadges trace={trace} />
                  <span className="grow">{title(trace)}</span>
                  <span className="figure">{duration(trace.durationMs)}</span>
                  <span className="muted small wide">{ago(trace.start, Date.now())}</span>
                </Link>
              </li>
            ))}
          </ul>
          <Link className="more" change={{ view: 'traces', ...filter, find: '', outcome: null }}>
            All traces through it
            <Icon name="arrow" size={14} />
          </Link>
        </>
      )}
    </Section>
  );
}
