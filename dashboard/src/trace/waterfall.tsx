// SPDX-License-Identifier: Apache-2.0
// Spans over time, one row each. Draws only the rows in view, so that ten thousand spans scroll like ten.
// A tree grid for keyboards: up and down move, left and right fold, Enter opens the span.
import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState, type KeyboardEvent, type ReactElement } from 'react';
import { duration, plural } from '../format.ts';
import { OUTCOME_TEXT } from '../outcome.ts';
import { Icon, outcomeIcon } from '../parts/icons.tsx';
import { barOf, ticks, type Extent } from './timeline.ts';
import { NOTE_TEXT, type Row } from './tree.ts';

const ROW_HEIGHT = 34;
const SPARE = 8;
const HUES = 8;
const TICKS = 5;

interface Props {
  rows: Row[];
  extent: Extent;
  colours: Map<string, number>;
  selected: string | null;
  onSelect: (key: string) => void;
  onFold: (key: string, fold: boolean) => void;
}

export function Waterfall({ rows, extent, colours, selected, onSelect, onFold }: Props): ReactElement {
  const id = useId();
  const box = useRef<HTMLDivElement>(null);
  const [cursor, setCursor] = useState<string | null>(selected);
  const view = useView(box);
  const marks = useMemo(() => ticks(extent.end - extent.start, TICKS), [extent]);
  const at = Math.max(0, rows.findIndex(({ branch }) => branch.key === cursor));
  const from = Math.max(0, Math.floor(view.top / ROW_HEIGHT) - SPARE);
  const until = Math.min(rows.length, Math.ceil((view.top + view.height) / ROW_HEIGHT) + SPARE);
  const active = rows[at];

  // A bookmarked span is scrolled to once.
  useEffect(() => {
    const index = rows.findIndex(({ branch }) => branch.key === selected);
    if (index >= 0) reveal(box.current, index);
  }, []);

  const move = (to: number): void => {
    const row = rows[Math.min(rows.length - 1, Math.max(0, to))];
    if (!row) return;
    setCursor(row.branch.key);
    reveal(box.current, rows.indexOf(row));
    if (selected !== null) onSelect(row.branch.key);
  };
  const key = (event: KeyboardEvent): void => {
    const page = Math.max(1, Math.floor(view.height / ROW_HEIGHT) - 1);
    const action = active && keyAction(event.key, { rows, at, page, active });
    if (!action) return;
    event.preventDefault();
    if ('move' in action) move(action.move);
    else if ('fold' in action) onFold(active.branch.key, action.fold);
    else onSelect(active.branch.key);
  };

  return (
    <div className="waterfall">
      <Axis marks={marks} length={extent.end - extent.start} />
      <div
        ref={box}
        className="waterfall-rows"
        role="treegrid"
        aria-label="Spans over time"
        aria-rowcount={rows.length}
        tabIndex={0}
        aria-activedescendant={active && at >= from && at < until ? `${id}-${at}` : undefined}
        onKeyDown={key}
      >
        <div className="waterfall-all" role="rowgroup" style={{ height: rows.length * ROW_HEIGHT }}>
          {rows.slice(from, until).map((row, index) => (
            <SpanRow
              key={row.branch.key}
              id={`${id}-${from + index}`}
              index={from + index}
              {...{ row, extent, marks }}
              hue={(colours.get(row.branch.span.service) ?? 0) % HUES}
              selected={row.branch.key === selected}
              cursor={from + index === at}
              onSelect={() => {
                setCursor(row.branch.key);
                onSelect(row.branch.key);
              }}
              onFold={() => onFold(row.branch.key, !row.folded)}
            />
          ))}
        </div>
      </div>
    </div>
  );
}

type Action = { move: number } | { fold: boolean } | { open: true };

/** What a key means on a row; tree-grid habits of WAI-ARIA. */
export function keyAction(key: string, on: { rows: readonly Row[]; at: number; page: number; active: Row }): Action | null {
  const { rows, at, page, active } = on;
  const canFold = active.branch.children.length > 0;
  switch (key) {
    case 'ArrowDown':
      return { move: at + 1 };
    case 'ArrowUp':
      return { move: at - 1 };
    case 'PageDown':
      return { move: at + page };
    case 'PageUp':
      return { move: at - page };
    case 'Home':
      return { move: 0 };
    case 'End':
      return { move: rows.length - 1 };
    case 'ArrowRight':
      return canFold && active.folded ? { fold: false } : canFold ? { move: at + 1 } : null;
    case 'ArrowLeft':
      return canFold && !active.folded ? { fold: true } : { move: parentOf(rows, at) };
    case 'Enter':
    case ' ':
      return { open: true };
    default:
      return null;
  }
}

function parentOf(rows: readonly Row[], at: number): number {
  const depth = rows[at]?.depth ?? 0;
  for (let above = at - 1; above >= 0; above--) if ((rows[above]?.depth ?? 0) < depth) return above;
  return at;
}

function reveal(box: HTMLElement | null, index: number): void {
  if (!box) return;
  const top = index * ROW_HEIGHT;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + ROW_HEIGHT > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW_HEIGHT - box.clientHeight;
}

function useView(box: React.RefObject<HTMLElement | null>): { top: number; height: number } {
  const [view, setView] = useState({ top: 0, height: 800 });
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const look = (): void => setView({ top: element.scrollTop, height: element.clientHeight });
    const watch = new ResizeObserver(look);
    watch.observe(element);
    element.addEventListener('scroll', look, { passive: true });
    look();
    return () => {
      watch.disconnect();
      element.removeEventListener('scroll', look);
    };
  }, [box]);
  return view;
}

function Axis({ marks, length }: { marks: number[]; length: number }): ReactElement {
  return (
    <div className="waterfall-axis" aria-hidden="true">
      <span className="axis-name">Service and operation</span>
      <div className="axis-track">
        {marks.map((mark) => (
          <span
            key={mark}
            className={mark / length > 0.93 ? 'figure at-end' : 'figure'}
            style={{ left: `${length > 0 ? (mark / length) * 100 : 0}%` }}
          >
            {duration(mark)}
          </span>
        ))}
      </div>
    </div>
  );
}

interface SpanRowProps {
  id: string;
  index: number;
  row: Row;
  extent: Extent;
  marks: number[];
  hue: number;
  selected: boolean;
  cursor: boolean;
  onSelect: () => void;
  onFold: () => void;
}

function SpanRow(props: SpanRowProps): ReactElement {
  const { row, index, hue } = props;
  const { span, note, children } = row.branch;
  const classes = ['span-row', `hue-${hue}`];
  if (props.selected) classes.push('selected');
  if (props.cursor) classes.push('cursor');
  if (span.proxy) classes.push('is-proxy');
  return (
    <div
      id={props.id}
      className={classes.join(' ')}
      role="row"
      aria-rowindex={index + 1}
      aria-level={row.depth + 1}
      aria-selected={props.selected}
      aria-expanded={children.length > 0 ? !row.folded : undefined}
      style={{ top: index * ROW_HEIGHT }}
      onClick={props.onSelect}
    >
      <div className="span-name" role="gridcell">
        <span className="indent" style={{ width: Math.min(row.depth, 24) * 14 }} />
        {children.length > 0 ? (
          <span
            className={row.folded ? 'fold' : 'fold is-open'}
            onClick={(event) => {
              event.stopPropagation();
              props.onFold();
            }}
            title={row.folded ? 'Unfold' : 'Fold'}
          >
            <Icon name="right" size={14} />
          </span>
        ) : (
          <span className="fold" />
        )}
        <span className="swatch" />
        {span.outcome !== 'ok' && (
          <span className={`ink-${span.outcome}`} title={OUTCOME_TEXT[span.outcome].detail}>
            <Icon name={outcomeIcon(span.outcome)} size={14} />
            <span className="hidden">{OUTCOME_TEXT[span.outcome].label}</span>
          </span>
        )}
        <span className="span-service">{span.service}</span>
        <span className="span-operation" title={span.name}>{span.name}</span>
        {span.proxy && <span className="tag">proxy</span>}
        {note && (
          <span className="tag warn" title={NOTE_TEXT[note]}>
            {note}
          </span>
        )}
        {row.folded && <span className="tag">{`+${plural(row.below, 'span')}`}</span>}
      </div>
      <Track {...props} />
    </div>
  );
}

function Track({ row, extent, marks }: SpanRowProps): ReactElement {
  const { span } = row.branch;
  const { left, width } = barOf(span, extent);
  const length = extent.end - extent.start;
  const [height, y] = span.proxy ? [8, 13] : [16, 9];
  const label = span.inProgress ? 'in progress' : duration(span.durationMs);
  return (
    <div className="span-track" role="gridcell">
      <svg className="track" width="100%" height={ROW_HEIGHT} aria-hidden="true">
        {length > 0 &&
          marks.map((mark) => {
            const x = `${(mark / length) * 100}%`;
            return <line key={mark} className="gridline" x1={x} x2={x} y1="0" y2={ROW_HEIGHT} />;
          })}
        <rect className={`bar bar-${span.outcome}`} x={`${left * 100}%`} y={y} width={`${width * 100}%`} height={height} rx={span.proxy ? 3 : 4} />
        {/* The shortest span still shows. */}
        <rect className={`bar-foot bar-${span.outcome}`} x={`${Math.min(left, 0.997) * 100}%`} y={y} width="2" height={height} rx="1" />
      </svg>
      <span className="span-time figure" style={{ left: `${(left + width) * 100}%` }}>
        {label}
      </span>
    </div>
  );
}
