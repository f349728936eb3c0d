// SPDX-License-Identifier: Apache-2.0
// Which time is looked at: the last minutes, or from–to.
import { useEffect, useId, useRef, useState, type FormEvent, type ReactElement } from 'react';
import { clock, inputTime } from '../format.ts';
import { useNav } from '../state/nav.tsx';
import { customRange, windowOf } from '../state/window.ts';
import { Icon } from './icons.tsx';

const CHOICES = [5, 15, 60] as const;

export function TimePicker(): ReactElement {
  const { state, go } = useNav();
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const { range } = state;
  const custom = range.kind === 'fixed' || !CHOICES.some((minutes) => minutes === range.minutes);

  useEffect(() => {
    if (!open) return undefined;
    const outside = (event: Event): void => {
      if (event.target instanceof Node && !box.current?.contains(event.target)) setOpen(false);
    };
    document.addEventListener('pointerdown', outside);
    return () => document.removeEventListener('pointerdown', outside);
  }, [open]);

  return (
    <div
      className="picker"
      ref={box}
      onKeyDown={(event) => {
        if (event.key !== 'Escape' || !open) return;
        event.stopPropagation();
        setOpen(false);
      }}
    >
      <div className="segments" role="group" aria-label="Time range">
        {CHOICES.map((minutes) => (
          <button
            key={minutes}
            type="button"
            aria-pressed={range.kind === 'last' && range.minutes === minutes}
            title={`The last ${minutes} minutes`}
            onClick={() => {
              setOpen(false);
              go({ range: { kind: 'last', minutes }, at: null });
            }}
          >
            {minutes}
            <span aria-hidden="true"> min</span>
            <span className="hidden"> minutes</span>
          </button>
        ))}
        <button type="button" aria-pressed={custom} aria-expanded={open} onClick={() => setOpen(!open)}>
          {range.kind === 'fixed'
            ? `${clock(range.start * 1000, Date.now())} – ${clock(range.end * 1000, Date.now())}`
            : custom
              ? `${range.minutes} min`
              : 'Custom'}
        </button>
      </div>
      {open && <Custom close={() => setOpen(false)} />}
    </div>
  );
}

function Custom({ close }: { close: () => void }): ReactElement {
  const { state, go } = useNav();
  const shown = windowOf(state, Date.now());
  const [from, setFrom] = useState(inputTime(shown.start * 1000));
  const [to, setTo] = useState(inputTime(shown.end * 1000));
  const [problem, setProblem] = useState<string | null>(null);
  const id = useId();
  const apply = (event: FormEvent): void => {
    event.preventDefault();
    const range = customRange(from, to);
    if ('problem' in range) return setProblem(range.problem);
    go({ range: { kind: 'fixed', ...range }, at: null });
    close();
  };
  return (
    <form className="popover" onSubmit={apply} aria-label="Custom time range">
      <label htmlFor={`${id}-from`}>From</label>
      <input id={`${id}-from`} type="datetime-local" value={from} autoFocus onChange={(event) => setFrom(event.target.value)} />
      <label htmlFor={`${id}-to`}>To</label>
      <input id={`${id}-to`} type="datetime-local" value={to} onChange={(event) => setTo(event.target.value)} />
      {problem && (
        <p className="problem" role="alert">
          <Icon name="error" size={14} /> {problem}
        </p>
      )}
      <button type="submit" className="button primary">
        Show
      </button>
    </form>
  );
}
