// SPDX-License-Identifier: Apache-2.0
// The state of the screen for every component below, and links that change it yet open in a new tab like any link.
import { createContext, useContext, type MouseEvent, type ReactElement, type ReactNode } from 'react';
import { DEFAULT, type State } from './url.ts';
import { hrefOf, type Change, type Go } from './use-url.ts';

export interface Nav {
  state: State;
  go: Go;
}

const Context = createContext<Nav>({ state: DEFAULT, go: () => undefined });

export const NavProvider = Context.Provider;
export const useNav = (): Nav => useContext(Context);

interface LinkProps {
  change: Change;
  className?: string;
  current?: boolean;
  title?: string;
  children: ReactNode;
}

export function Link({ change, className, current, title, children }: LinkProps): ReactElement {
  const { state, go } = useNav();
  const follow = (event: MouseEvent): void => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    go(change);
  };
  return (
    <a href={hrefOf(state, change)} className={className} title={title} aria-current={current ? 'page' : undefined} onClick={follow}>
      {children}
    </a>
  );
}

/** Leaving a trace keeps the range, and nothing of the trace. */
export const openTrace = (id: string): Change => ({ view: 'trace', trace: id, span: null });
export const leaveTrace = (view: 'map' | 'traces' | 'losses'): Change => ({ view, trace: null, span: null });
