// SPDX-License-Identifier: Apache-2.0
// The map as two tables: for screen readers, for copying, and for meshes too large to look at.
import { useState, type ReactElement, type ReactNode } from 'react';
import type { MapEdge, MapNode, ServiceMap } from '../api/types.ts';
import { count, duration, percent, rate } from '../format.ts';
import { concern, okShare, split, type Counts } from '../outcome.ts';
import { Badge } from '../parts/figures.tsx';
import { Icon, typeIcon, typeText } from '../parts/icons.tsx';
import type { Selection } from '../state/url.ts';
import { matches } from './map-view.tsx';

interface Column<T> {
  name: string;
  numeric: boolean;
  sort: (row: T) => number | string;
  cell: (row: T) => ReactNode;
}

interface Props {
  map: ServiceMap;
  seconds: number;
  selection: Selection;
  find: string;
  onSelect: (selection: Selection) => void;
}

export function MapTable({ map, seconds, selection, find, onSelect }: Props): ReactElement {
  const wanted = find.trim().toLowerCase();
  const nodes = map.nodes.filter((node) => matches(node, wanted));
  const names = new Map(map.nodes.map(({ id, name }) => [id, name]));
  const name = (id: string): string => names.get(id) ?? id;
  const edges = map.edges.filter(({ source, target }) => [source, target].some((id) => name(id).toLowerCase().includes(wanted)));
  return (
    <div className="tables">
      <Sortable
        title="Services"
        rows={nodes}
        id={({ id }) => id}
        columns={[...nodeColumns(onSelect), ...figureColumns<MapNode>(seconds)]}
        selected={({ id }) => selection?.kind === 'node' && selection.id === id}
      />
      <Sortable
        title="Calls"
        rows={edges}
        id={({ source, target }) => `${source}\n${target}`}
        columns={[...edgeColumns(name, onSelect), ...figureColumns<MapEdge>(seconds)]}
        selected={({ source, target }) =>
          selection?.kind === 'edge' && selection.source === source && selection.target === target
        }
      />
    </div>
  );
}

function nodeColumns(onSelect: Props['onSelect']): Column<MapNode>[] {
  return [
    {
      name: 'Service',
      numeric: false,
      sort: ({ name }) => name,
      cell: ({ id, name, type }) => (
        <button type="button" className="row-link" onClick={() => onSelect({ kind: 'node', id })}>
          <Icon name={typeIcon(type)} size={16} />
          {name}
        </button>
      ),
    },
    { name: 'Type', numeric: false, sort: ({ type }) => type, cell: ({ type }) => typeText(type) },
  ];
}

function edgeColumns(name: (id: string) => string, onSelect: Props['onSelect']): Column<MapEdge>[] {
  return [
    {
      name: 'Caller',
      numeric: false,
      sort: ({ source }) => name(source),
      cell: ({ source, target }) => (
        <button type="button" className="row-link" onClick={() => onSelect({ kind: 'edge', source, target })}>
          {name(source)}
          <span className="hidden"> calls {name(target)}</span>
        </button>
      ),
    },
    { name: 'Called', numeric: false, sort: ({ target }) => name(target), cell: ({ target }) => name(target) },
  ];
}

function figureColumns<T extends { counts: Counts; latency: MapNode['latency'] }>(seconds: number): Column<T>[] {
  return [
    { name: 'Calls', numeric: true, sort: (row) => row.counts.total, cell: (row) => count(row.counts.total) },
    { name: 'Rate', numeric: true, sort: (row) => row.counts.total, cell: (row) => rate(row.counts.total, seconds) },
    {
      name: 'OK',
      numeric: true,
      sort: (row) => okShare(row.counts) ?? 2,
      cell: (row) => {
        const bad = concern(row.counts);
        return (
          <span className="ok-cell">
            {bad && <Badge outcome={bad.outcome} />}
            {percent(okShare(row.counts))}
          </span>
        );
      },
    },
    { name: '4xx', numeric: true, sort: (row) => split(row.counts).error, cell: (row) => count(split(row.counts).error) },
    { name: '429', numeric: true, sort: (row) => row.counts.throttle, cell: (row) => count(split(row.counts).throttle) },
    { name: '5xx', numeric: true, sort: (row) => row.counts.fault, cell: (row) => count(row.counts.fault) },
    ...(['p50', 'p90', 'p99'] as const).map(
      (name): Column<T> => ({
        name,
        numeric: true,
        sort: (row) => row.latency[name] ?? -1,
        cell: (row) => duration(row.latency[name]),
      }),
    ),
  ];
}

interface SortableProps<T> {
  title: string;
  rows: readonly T[];
  id: (row: T) => string;
  columns: readonly Column<T>[];
  selected: (row: T) => boolean;
}

function Sortable<T>({ title, rows, id, columns, selected }: SortableProps<T>): ReactElement {
  const [by, setBy] = useState({ column: 0, down: false });
  const column = columns[by.column] ?? columns[0];
  const sorted = [...rows].sort((a, b) => (column ? compare(column.sort(a), column.sort(b)) * (by.down ? -1 : 1) : 0));
  return (
    <section className="table-box">
      <table className="table">
        <caption>
          {title} <span className="muted">{rows.length}</span>
        </caption>
        <thead>
          <tr>
            {columns.map(({ name, numeric }, index) => (
              <th
                key={name}
                scope="col"
                className={numeric ? 'numeric' : ''}
                aria-sort={by.column === index ? (by.down ? 'descending' : 'ascending') : 'none'}
              >
                <button
                  type="button"
                  onClick={() => setBy({ column: index, down: by.column === index ? !by.down : numeric })}
                >
                  {name}
                  <span className="sort-sign" aria-hidden="true">
                    {by.column === index ? (by.down ? '↓' : '↑') : ''}
                  </span>
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sorted.map((row) => (
            <tr key={id(row)} className={selected(row) ? 'selected' : ''}>
              {columns.map(({ name, numeric, cell }, index) =>
                index === 0 ? (
                  <th key={name} scope="row">
                    {cell(row)}
                  </th>
                ) : (
                  <td key={name} className={numeric ? 'numeric figure' : ''}>
                    {cell(row)}
                  </td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function compare(a: number | string, b: number | string): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a).localeCompare(String(b), 'en');
}
