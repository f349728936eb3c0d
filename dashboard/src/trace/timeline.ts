// SPDX-License-Identifier: Apache-2.0
// The waterfall's time axis. Pure.
import type { Span } from '../api/types.ts';

export interface Extent {
  /** Epoch milliseconds. */
  start: number;
  end: number;
}

/** From the first start to the last end: children may begin before their parent (clocks differ) and must still be seen. */
export function extentOf(spans: readonly Span[]): Extent {
  let [start, end] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const span of spans) {
    start = Math.min(start, span.start);
    end = Math.max(end, span.start + span.durationMs);
  }
  return Number.isFinite(start) ? { start, end: Math.max(end, start) } : { start: 0, end: 0 };
}

export interface Bar {
  /** Fractions of the axis. */
  left: number;
  width: number;
}

export function barOf(span: Pick<Span, 'start' | 'durationMs'>, extent: Extent): Bar {
  const length = extent.end - extent.start;
  if (length <= 0) return { left: 0, width: 1 };
  const left = clamp((span.start - extent.start) / length);
  return { left, width: Math.min(clamp(span.durationMs / length), 1 - left) };
}

const clamp = (value: number): number => Math.min(1, Math.max(0, value));

/** Round times (1, 2 or 5 times a power of ten) that cut the axis in about `wanted` parts; milliseconds from its start. */
export function ticks(lengthMs: number, wanted: number): number[] {
  if (!(lengthMs > 0) || wanted < 1) return [0];
  const rough = lengthMs / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10) * power;
  const marks: number[] = [];
  for (let n = 0; n * step <= lengthMs * 1.000001; n++) marks.push(Number((n * step).toPrecision(12)));
  return marks;
}

/** Services in order of first appearance: their index picks their colour, so a trace always looks the same. */
export function palette(spans: readonly Span[]): Map<string, number> {
  const index = new Map<string, number>();
  for (const span of [...spans].sort((a, b) => a.start - b.start)) {
    if (!index.has(span.service)) index.set(span.service, index.size);
  }
  return index;
}
