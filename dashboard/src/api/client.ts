// SPDX-License-Identifier: Apache-2.0
// Asks the collector. Addresses are relative to the page, so the dashboard works behind any prefix.
import { decodeLosses, decodeMap, decodeTrace, decodeTraces } from './decode.ts';
import type { Losses, ServiceMap, Trace, TraceList } from './types.ts';
import type { Window } from '../state/window.ts';

const PATIENCE_MS = 15_000;

/** What went wrong, in words for the reader and a remedy to try. */
export class AskError extends Error {
  constructor(
    readonly title: string,
    readonly remedy: string,
    readonly status: number | null = null,
  ) {
    super(title);
  }
}

export function askMap(window: Window, collapse: boolean, signal: AbortSignal): Promise<ServiceMap> {
  const query = new URLSearchParams({ start: String(window.start), end: String(window.end) });
  if (!collapse) query.set('collapse', 'false');
  return ask(`pillion/v1/map?${query}`, decodeMap, signal);
}

/** What the collector itself selects by; the rest of a filter is applied to what it answers. */
export interface Selected {
  service: string | null;
}

export function askTraces(window: Window, limit: number, { service }: Selected, signal: AbortSignal): Promise<TraceList> {
  const query = new URLSearchParams({
    start: String(window.start),
    end: String(window.end),
    limit: String(limit),
  });
  if (service) query.set('service', service);
  return ask(`pillion/v1/traces?${query}`, decodeTraces, signal);
}

export function askTrace(id: string, signal: AbortSignal): Promise<Trace> {
  return ask(`pillion/v1/traces/${encodeURIComponent(id)}`, decodeTrace, signal);
}

export async function askLosses(signal: AbortSignal): Promise<Losses> {
  const same = (answer: unknown): unknown => answer;
  const [stats, rejects] = await Promise.all([
    ask('pillion/v1/stats', same, signal),
    ask('pillion/v1/rejects', same, signal),
  ]);
  return decodeLosses(stats, rejects);
}

async function ask<T>(path: string, decode: (answer: unknown) => T, signal: AbortSignal): Promise<T> {
  const address = new URL(path, document.baseURI);
  let response: Response;
  try {
    response = await fetch(address, {
      headers: { accept: 'application/json' },
      signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]),
    });
  } catch (cause) {
    if (signal.aborted) throw cause;
    const late = cause instanceof DOMException && cause.name === 'TimeoutError';
    throw new AskError(
      late ? `The collector at ${address.host} did not answer in ${PATIENCE_MS / 1000} s` : `The collector at ${address.host} cannot be reached`,
      late ? 'It may be busy: choose a shorter time range, or wait for the next try.' : 'Start it with `pillion-collector`, or the whole demo with `pillion demo`.',
    );
  }
  const text = await response.text();
  const answer = json(text);
  if (!response.ok) throw refusal(response.status, answer, text);
  if (answer === undefined) {
    throw new AskError(
      `${address.pathname} did not answer with JSON`,
      'Something else may be listening at this address, or a proxy in between answered for it.',
      response.status,
    );
  }
  return decode(answer);
}

function json(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function refusal(status: number, answer: unknown, text: string): AskError {
  const said = sentence(answer) ?? (text.length < 300 && !text.trimStart().startsWith('<') ? text.trim() : '');
  if (status === 404) return new AskError(said || 'Not found', 'It may not have arrived yet, or it is older than the retention.', 404);
  if (status === 429 || status === 503) {
    return new AskError(said || 'The collector is busy', 'It asks to be left alone for a moment; the next try comes by itself.', status);
  }
  return new AskError(`The collector answered ${status}${said ? `: ${said}` : ''}`, 'Its log on standard error says more.', status);
}

function sentence(answer: unknown): string | null {
  if (typeof answer === 'string') return answer;
  if (typeof answer !== 'object' || answer === null) return null;
  for (const key of ['message', 'Message', 'error']) {
    const value = (answer as Record<string, unknown>)[key];
    if (typeof value === 'string' && value !== '') return value;
    if (typeof value === 'object') return sentence(value);
  }
  return null;
}
