// SPDX-License-Identifier: Apache-2.0
// Everything about one span: facts, message, events, attributes, and the span as the collector answered it.
import type { ReactElement, ReactNode } from 'react';
import { duration } from '../format.ts';
import { OUTCOME_TEXT } from '../outcome.ts';
import { Badge } from '../parts/figures.tsx';
import { Icon } from '../parts/icons.tsx';
import { Copy } from '../parts/states.tsx';
import { NOTE_TEXT, type Branch } from './tree.ts';

interface Props {
  branch: Branch;
  traceStart: number;
  onClose: () => void;
  onParent: (id: string) => void;
}

export function SpanPanel({ branch, traceStart, onClose, onParent }: Props): ReactElement {
  const { span, note } = branch;
  const json = JSON.stringify(span.raw, null, 2);
  return (
    <aside className="panel" aria-label={`Span ${span.name}`}>
      <header className="panel-head">
        <div className="panel-title">
          <h2>{span.name}</h2>
          <p className="muted">
            {span.service} · {span.kind}
            {span.proxy && ' · proxy'}
          </p>
        </div>
        <button type="button" className="button quiet icon-only" onClick={onClose} aria-label="Close details" title="Close (Esc)">
          <Icon name="close" />
        </button>
      </header>
      <div className="panel-body" tabIndex={0} role="region" aria-label={`Details of span ${span.name}`}>
        {note && (
          <p className="problem">
            <Icon name="error" size={14} /> {NOTE_TEXT[note]}
          </p>
        )}
        {span.message && <p className="message">{span.message}</p>}
        <dl className="facts">
          <Fact name="Outcome">
            <Badge outcome={span.outcome} text={String(span.status ?? OUTCOME_TEXT[span.outcome].label)} />
          </Fact>
          <Fact name="Duration">
            <span className="figure">{span.inProgress ? 'in progress' : duration(span.durationMs)}</span>
          </Fact>
          <Fact name="Began">
            <span className="figure" title={new Date(span.start).toISOString()}>
              {duration(span.start - traceStart)} into the trace
            </span>
          </Fact>
          <Fact name="Span id">
            <code>{span.id}</code>
            <Copy text={span.id} what="span id" />
          </Fact>
          {span.parent !== null && (
            <Fact name="Parent">
              <button type="button" className="row-link" disabled={note === 'orphan'} onClick={() => onParent(span.parent ?? '')}>
                <code>{span.parent}</code>
              </button>
            </Fact>
          )}
        </dl>
        <section className="panel-section">
          <h3>Attributes</h3>
          {Object.keys(span.attributes).length === 0 ? <p className="muted">None.</p> : <Attributes values={span.attributes} />}
        </section>
        <details className="panel-section raw">
          <summary>Raw JSON</summary>
          <Copy text={json} what="raw JSON" />
          <pre tabIndex={0}>{json}</pre>
        </details>
      </div>
    </aside>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }): ReactElement {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Attributes({ values }: { values: Record<string, unknown> }): ReactElement {
  const entries = Object.entries(values).sort(([a], [b]) => (a < b ? -1 : 1));
  return (
    <dl className="attributes">
      {entries.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{typeof value === 'string' ? value : JSON.stringify(value, null, 1)}</dd>
        </div>
      ))}
    </dl>
  );
}
