// SPDX-License-Identifier: Apache-2.0
// Spans of one trace as a tree to draw. Pure. What real traces lack or get wrong (parents that never arrived,
// circles, two spans of one id) is kept, drawn and named, never dropped: the counts must add up.
import type { Span } from '../api/types.ts';

export type Note = 'orphan' | 'circle' | 'double';

export const NOTE_TEXT: Record<Note, string> = {
  orphan: 'Its parent span has not arrived.',
  circle: 'Its parents form a circle; it is shown at the top instead.',
  double: 'Another span of this trace has the same id.',
};

export interface Branch {
  /** Unique in the trace, also where span ids are not. */
  key: string;
  span: Span;
  note: Note | null;
  children: Branch[];
}

/** Roots by start; children by start below each. Every span is in the result exactly once. */
export function grow(spans: readonly Span[]): Branch[] {
  const branches: Branch[] = [];
  const byId = new Map<string, Branch>();
  for (const span of [...spans].sort(byStart)) {
    const double = byId.has(span.id);
    const branch: Branch = {
      key: double ? `${span.id}#${branches.length}` : span.id,
      span,
      note: double ? 'double' : null,
      children: [],
    };
    branches.push(branch);
    if (!double) byId.set(span.id, branch);
  }
  const roots: Branch[] = [];
  for (const branch of branches) {
    const { parent, id } = branch.span;
    const above = parent === null || parent === id ? undefined : byId.get(parent);
    if (above && above !== branch) above.children.push(branch);
    else {
      roots.push(branch);
      if (parent === id && parent !== null) branch.note ??= 'circle';
      else if (parent !== null) branch.note ??= 'orphan';
    }
  }
  return [...roots, ...cutCircles(branches, roots)].sort((a, b) => byStart(a.span, b.span));
}

function byStart(a: Span, b: Span): number {
  return a.start - b.start || b.durationMs - a.durationMs || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
}

/** What no root reaches hangs in a circle: cut it at its earliest span and make that a root. */
function cutCircles(branches: readonly Branch[], roots: readonly Branch[]): Branch[] {
  const reached = new Set<Branch>();
  const reach = (from: Branch): void => {
    const stack = [from];
    for (let next = stack.pop(); next; next = stack.pop()) {
      if (reached.has(next)) continue;
      reached.add(next);
      stack.push(...next.children);
    }
  };
  roots.forEach(reach);
  const cut: Branch[] = [];
  for (const branch of branches) {
    if (reached.has(branch)) continue;
    const above = branches.find((other) => other.children.includes(branch));
    if (above) above.children = above.children.filter((child) => child !== branch);
    branch.note ??= 'circle';
    cut.push(branch);
    reach(branch);
  }
  return cut;
}

/** The tree without sidecar spans; what hung below one hangs below the nearest span that stays. */
export function withoutProxies(roots: readonly Branch[]): Branch[] {
  return roots.flatMap((branch) => {
    const children = withoutProxies(branch.children);
    return branch.span.proxy ? children : [{ ...branch, children }];
  });
}

export interface Row {
  branch: Branch;
  depth: number;
  folded: boolean;
  /** Spans below, at any depth. */
  below: number;
}

/** Rows from top to bottom; below a folded branch there are none. */
export function flatten(roots: readonly Branch[], folded: ReadonlySet<string>): Row[] {
  const rows: Row[] = [];
  const sizes = new Map<Branch, number>();
  const stack = [...roots].reverse().map((branch) => ({ branch, depth: 0 }));
  for (let next = stack.pop(); next; next = stack.pop()) {
    const { branch, depth } = next;
    const isFolded = branch.children.length > 0 && folded.has(branch.key);
    rows.push({ branch, depth, folded: isFolded, below: size(branch, sizes) - 1 });
    if (isFolded) continue;
    for (const child of [...branch.children].reverse()) stack.push({ branch: child, depth: depth + 1 });
  }
  return rows;
}

/** Counted with a stack of its own: a chain of ten thousand spans is data, not an error. */
function size(branch: Branch, sizes: Map<Branch, number>): number {
  const stack = [branch];
  for (let top = stack.at(-1); top; top = stack.at(-1)) {
    const missing = top.children.filter((child) => !sizes.has(child));
    if (missing.length > 0) stack.push(...missing);
    else {
      sizes.set(top, top.children.reduce((sum, child) => sum + (sizes.get(child) ?? 0), 1));
      stack.pop();
    }
  }
  return sizes.get(branch) ?? 1;
}

/** Keys of all branches that can be folded. */
export function foldable(roots: readonly Branch[]): string[] {
  return flatten(roots, new Set()).filter(({ below }) => below > 0).map(({ branch }) => branch.key);
}
