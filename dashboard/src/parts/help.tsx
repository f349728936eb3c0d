// SPDX-License-Identifier: Apache-2.0
// The list of keys, and what they do everywhere.
import { useEffect, useRef, type ReactElement } from 'react';
import { Icon } from './icons.tsx';

const KEYS: readonly (readonly [key: string, meaning: string])[] = [
  ['m', 'Service map'],
  ['t', 'Traces'],
  ['l', 'Losses: what was refused or dropped, and why'],
  ['/', 'Find'],
  ['p', 'Pause, resume'],
  ['r', 'Refresh now'],
  ['Esc', 'Close details'],
  ['← →', 'On the map: to a caller, to a called service; in a trace: fold, unfold'],
  ['↑ ↓', 'The service or span above, below'],
  ['Enter', 'Open what is focused'],
  ['?', 'These keys'],
];

export function Help({ open, close }: { open: boolean; close: () => void }): ReactElement {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    if (open && element && !element.open) element.showModal();
    if (!open) element?.close();
  }, [open]);
  return (
    <dialog ref={dialog} className="help" aria-labelledby="help-title" onClose={close} onClick={(event) => event.target === dialog.current && close()}>
      <header>
        <h2 id="help-title">Keys</h2>
        <button type="button" className="button quiet icon-only" onClick={close} aria-label="Close">
          <Icon name="close" />
        </button>
      </header>
      <dl>
        {KEYS.map(([key, meaning]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
    </dialog>
  );
}
