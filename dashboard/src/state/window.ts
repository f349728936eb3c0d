// SPDX-License-Identifier: Apache-2.0
// From the chosen range to the seconds that are asked for. Pure: the clock is a parameter.
import type { State } from './url.ts';

/** Epoch seconds, end exclusive. */
export interface Window {
  start: number;
  end: number;
}

export function windowOf(state: Pick<State, 'range' | 'at'>, nowMs: number): Window {
  if (state.range.kind === 'fixed') return { start: state.range.start, end: state.range.end };
  const end = state.at ?? Math.ceil(nowMs / 1000);
  return { start: end - state.range.minutes * 60, end };
}

/** A fixed or paused window shows the same seconds for ever, so nothing is asked for twice. */
export function isLive(state: Pick<State, 'range' | 'at'>): boolean {
  return state.range.kind === 'last' && state.at === null;
}

/** Reads the two fields of the custom picker; says what is wrong in words for the form. */
export function customRange(from: string, to: string): { start: number; end: number } | { problem: string } {
  const start = Date.parse(from);
  const end = Date.parse(to);
  if (Number.isNaN(start)) return { problem: 'Give a start date and time.' };
  if (Number.isNaN(end)) return { problem: 'Give an end date and time.' };
  if (start >= end) return { problem: 'The start must be before the end.' };
  return { start: Math.floor(start / 1000), end: Math.ceil(end / 1000) };
}
