// SPDX-License-Identifier: Apache-2.0
// What the screens work with. `decode.ts` makes these from the collector's answers; nothing else reads JSON.
import type { Counts, Outcome } from '../outcome.ts';

/** Milliseconds; null where nothing was measured. */
export interface Latency {
  p50: number | null;
  p90: number | null;
  p99: number | null;
  mean: number | null;
}

export interface MapNode {
  id: string;
  name: string;
  type: string;
  /** Known from what others called it by; it sent no spans of its own. */
  inferred: boolean;
  counts: Counts;
  latency: Latency;
}

export interface MapEdge {
  source: string;
  target: string;
  counts: Counts;
  latency: Latency;
  /** Time spent in the sidecars on the way, mean per call. */
  proxyMs: number | null;
}

/** Epoch seconds of the first start and the last end that a map counts. */
export interface Seen {
  first: number;
  last: number;
}

export interface ServiceMap {
  nodes: MapNode[];
  edges: MapEdge[];
  /** null where nothing was counted. */
  seen: Seen | null;
}

export interface TraceSummary {
  id: string;
  /** Epoch milliseconds. */
  start: number;
  durationMs: number;
  name: string;
  service: string;
  method: string | null;
  url: string | null;
  status: number | null;
  /** Of the root: what the caller saw. */
  outcome: Outcome;
  /** Of anything in it, also where the root recovered. */
  worst: Outcome;
  spans: number | null;
  /** Names of the services it went through, as on the map. */
  services: string[];
  /** Some of it has not ended yet. */
  partial: boolean;
}

/** What one door took in, and what became of it. */
export interface DoorCounts {
  source: string;
  received: number;
  stored: number;
  /** By reason; `told` when the sender knows and may try again. */
  lost: { reason: string; count: number; told: boolean }[];
}

/** Something that was refused, with how it began. */
export interface Reject {
  /** Epoch milliseconds. */
  at: number;
  source: string;
  reason: string;
  message: string;
  sample: string;
}

export interface Losses {
  received: number;
  stored: number;
  rejected: number;
  dropped: number;
  doors: DoorCounts[];
  /** Newest first. */
  rejects: Reject[];
}

export interface TraceList {
  /** Newest first. */
  traces: TraceSummary[];
  /** There are older ones in the window. */
  more: boolean;
}

export interface Span {
  id: string;
  parent: string | null;
  name: string;
  service: string;
  kind: string;
  /** Epoch milliseconds, fractions kept. */
  start: number;
  durationMs: number;
  /** Made by a sidecar or gateway, not by the application. */
  proxy: boolean;
  inProgress: boolean;
  outcome: Outcome;
  status: number | null;
  message: string | null;
  attributes: Record<string, unknown>;
  /** As the collector answered it. */
  raw: unknown;
}

export interface Trace {
  id: string;
  spans: Span[];
  /** It had more spans than the collector keeps of one trace. */
  truncated: boolean;
}
