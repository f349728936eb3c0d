// SPDX-License-Identifier: Apache-2.0
// Which column a service stands in: as far right of its callers as the longest chain of calls demands.
// Pure, and independent of the order in which nodes and edges arrive.

export interface Topology {
  nodes: readonly string[];
  edges: readonly (readonly [source: string, target: string])[];
}

/** Sorted, without doubles, self-calls or ends that are not nodes: the form all layout steps work on. */
export function normalise(topology: Topology): Topology {
  const nodes = [...new Set(topology.nodes)].sort();
  const known = new Set(nodes);
  const seen = new Map<string, readonly [string, string]>();
  for (const [source, target] of topology.edges) {
    if (source === target || !known.has(source) || !known.has(target)) continue;
    seen.set(JSON.stringify([source, target]), [source, target]);
  }
  const edges = [...seen.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, edge]) => edge);
  return { nodes, edges };
}

export function neighbours(topology: Topology): { out: Map<string, string[]>; into: Map<string, string[]> } {
  const out = new Map<string, string[]>(topology.nodes.map((id) => [id, []]));
  const into = new Map<string, string[]>(topology.nodes.map((id) => [id, []]));
  for (const [source, target] of topology.edges) {
    out.get(source)?.push(target);
    into.get(target)?.push(source);
  }
  return { out, into };
}

/** Columns from 0. Calls that close a circle are left out of account, and so point backwards. */
export function ranks(topology: Topology): Map<string, number> {
  const normal = normalise(topology);
  const { out, into } = neighbours(normal);
  const starts = [
    ...normal.nodes.filter((id) => (into.get(id) ?? []).length === 0),
    ...normal.nodes.filter((id) => (into.get(id) ?? []).length > 0),
  ];
  const { order, back } = walk(starts, out);
  const rank = new Map<string, number>(normal.nodes.map((id) => [id, 0]));
  for (const source of order) {
    for (const target of out.get(source) ?? []) {
      if (back.has(JSON.stringify([source, target]))) continue;
      rank.set(target, Math.max(rank.get(target) ?? 0, (rank.get(source) ?? 0) + 1));
    }
  }
  return rank;
}

/** Depth first without recursion (chains may be long): topological order, and the calls that go back to an open caller. */
function walk(starts: readonly string[], out: Map<string, string[]>): { order: string[]; back: Set<string> } {
  const open = new Set<string>();
  const done = new Set<string>();
  const finished: string[] = [];
  const back = new Set<string>();
  for (const start of starts) {
    const stack = done.has(start) ? [] : [{ id: start, next: 0 }];
    open.add(start);
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      if (!top) break;
      const target = (out.get(top.id) ?? [])[top.next++];
      if (target === undefined) {
        open.delete(top.id);
        done.add(top.id);
        finished.push(top.id);
        stack.pop();
      } else if (open.has(target)) {
        back.add(JSON.stringify([top.id, target]));
      } else if (!done.has(target)) {
        open.add(target);
        stack.push({ id: target, next: 0 });
      }
    }
    open.delete(start);
  }
  return { order: finished.reverse(), back };
}
