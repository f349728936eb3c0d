// SPDX-License-Identifier: Apache-2.0
// Keeps the state in the address bar: the browser's back button, bookmarks and shared links all work on it.
import { useCallback, useEffect, useState } from 'react';
import { parse, write, type State } from './url.ts';

export type Change = Partial<State>;
/** `quiet` replaces the current history entry: for typing and for what nobody wants to step back through. */
export type Go = (change: Change, quiet?: 'quiet') => void;

export function useUrlState(): [State, Go] {
  const [state, setState] = useState(() => parse(window.location.search));

  useEffect(() => {
    const back = (): void => setState(parse(window.location.search));
    window.addEventListener('popstate', back);
    return () => window.removeEventListener('popstate', back);
  }, []);

  const go = useCallback<Go>((change, quiet) => {
    const next = { ...parse(window.location.search), ...change };
    const address = `${window.location.pathname}${write(next)}`;
    if (address !== `${window.location.pathname}${window.location.search}`) {
      window.history[quiet ? 'replaceState' : 'pushState'](null, '', address);
    }
    setState(next);
  }, []);

  return [state, go];
}

/** The address of a changed state, for links that can be opened in a new tab. */
export function hrefOf(state: State, change: Change): string {
  return `${window.location.pathname}${write({ ...state, ...change })}`;
}
