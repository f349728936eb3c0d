// SPDX-License-Identifier: Apache-2.0
// Asks again and again while the screen is live and looked at. Keeps the last good answer when an ask fails, so that a
// restart of the collector dims the map instead of wiping it.
import { useCallback, useEffect, useRef, useState } from 'react';
import { AskError } from './client.ts';

export const REFRESH_MS = 5_000;

interface Polled<T> {
  subject: string;
  /** The question that `answer` answers. */
  key: string | null;
  answer: T | null;
  /** When `answer` came, epoch milliseconds. */
  at: number | null;
  problem: AskError | null;
  busy: boolean;
}

export interface Poll<T> {
  answer: T | null;
  at: number | null;
  problem: AskError | null;
  busy: boolean;
  /** The answer is to an earlier question (another time range) until the new one comes. */
  stale: boolean;
  refresh: () => void;
}

export interface Question<T> {
  /** What is asked about. When it changes the old answer disappears at once. */
  subject: string;
  /** How it is asked about. When it changes the old answer stays until the new one is there. */
  key: string;
  live: boolean;
  /** Reads the clock itself, so that a moving window moves with every try. */
  ask: (signal: AbortSignal) => Promise<T>;
}

export function usePoll<T>({ subject, key, live, ask }: Question<T>): Poll<T> {
  const [polled, setPolled] = useState<Polled<T>>(() => blank(subject));
  const [round, setRound] = useState(0);
  const latest = useRef(ask);
  latest.current = ask;

  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const run = (): void => {
      clearTimeout(timer);
      setPolled((last) => ({ ...(last.subject === subject ? last : blank<T>(subject)), busy: true }));
      latest.current(stop.signal).then(
        (answer) => {
          if (stop.signal.aborted) return;
          setPolled({ subject, key, answer, at: Date.now(), problem: null, busy: false });
          again();
        },
        (cause: unknown) => {
          if (stop.signal.aborted) return;
          const problem = cause instanceof AskError ? cause : new AskError('The answer could not be read', String(cause));
          setPolled((last) => ({ ...last, problem, busy: false }));
          again();
        },
      );
    };
    // A hidden page rests, and asks at once when it is looked at again.
    const again = (): void => {
      if (live) timer = setTimeout(() => document.visibilityState === 'visible' && run(), REFRESH_MS);
    };
    const seen = (): void => {
      if (live && document.visibilityState === 'visible') run();
    };
    run();
    document.addEventListener('visibilitychange', seen);
    return () => {
      document.removeEventListener('visibilitychange', seen);
      stop.abort();
      clearTimeout(timer);
    };
  }, [subject, key, live, round]);

  const refresh = useCallback(() => setRound((n) => n + 1), []);
  const { answer, at, problem, busy, ...shown } = polled.subject === subject ? polled : blank<T>(subject);
  return { answer, at, problem, busy, stale: answer !== null && shown.key !== key, refresh };
}

function blank<T>(subject: string): Polled<T> {
  return { subject, key: null, answer: null, at: null, problem: null, busy: true };
}
