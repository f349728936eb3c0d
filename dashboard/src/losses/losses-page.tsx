// SPDX-License-Identifier: Apache-2.0
// What came in and was not stored: by door and reason, and the last refusals with how each began.
import type { ReactElement } from 'react';
import type { DoorCounts, Losses, Reject } from '../api/types.ts';
import type { Poll } from '../api/use-poll.ts';
import { ago, count } from '../format.ts';
import { Stat } from '../parts/figures.tsx';
import { Failed, Loading, Notice, StaleBanner } from '../parts/states.tsx';

export function LossesPage({ poll }: { poll: Poll<Losses | null> }): ReactElement {
  const losses = poll.answer;
  return (
    <main className="page" id="main">
      <h1 className="hidden">Losses</h1>
      {poll.problem && losses !== null && <StaleBanner problem={poll.problem} at={poll.at} retry={poll.refresh} />}
      {losses === null && poll.problem && <Failed problem={poll.problem} retry={poll.refresh} />}
      {losses === null && !poll.problem && <Loading what="losses" rows={6} />}
      {losses && (
        <>
          <dl className="stats inline" aria-label="Since the collector started">
            <Stat label="Received" value={count(losses.received)} />
            <Stat label="Stored" value={count(losses.stored)} />
            <Stat label="Refused" value={count(losses.rejected)} meaning="The sender was told and may try again" />
            <Stat label="Dropped" value={count(losses.dropped)} meaning="Nobody could be told" />
          </dl>
          {losses.doors.length > 0 && <Doors doors={losses.doors} />}
          {losses.rejects.length > 0 && <Rejects rejects={losses.rejects} />}
          {losses.rejects.length === 0 && (
            <Notice icon="ok" title="Nothing was refused">
              <p>Every document and span that arrived since the collector started was readable.</p>
            </Notice>
          )}
        </>
      )}
    </main>
  );
}

function Doors({ doors }: { doors: DoorCounts[] }): ReactElement {
  return (
    <div className="table-box">
      <table className="table">
        <caption>By door</caption>
        <thead>
          <tr>
            <th scope="col">Door</th>
            <th scope="col" className="numeric">Received</th>
            <th scope="col" className="numeric">Stored</th>
            <th scope="col">Refused or dropped, and why</th>
          </tr>
        </thead>
        <tbody>
          {doors.map((door) => (
            <tr key={door.source}>
              <th scope="row">{door.source}</th>
              <td className="numeric figure">{count(door.received)}</td>
              <td className="numeric figure">{count(door.stored)}</td>
              <td>
                {door.lost.length === 0
                  ? 'none'
                  : door.lost.map(({ reason, count: lost, told }) => `${count(lost)} ${told ? 'refused' : 'dropped'}: ${reason}`).join(', ')}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Rejects({ rejects }: { rejects: Reject[] }): ReactElement {
  const now = Date.now();
  return (
    <div className="table-box">
      <table className="table">
        <caption>
          Last refusals <span className="muted">{count(rejects.length)}, newest first</span>
        </caption>
        <thead>
          <tr>
            <th scope="col">Why</th>
            <th scope="col">Door</th>
            <th scope="col">It began</th>
            <th scope="col" className="numeric">When</th>
          </tr>
        </thead>
        <tbody>
          {rejects.map((one, index) => (
            <tr key={`${one.at} ${index}`}>
              <th scope="row">{one.message || one.reason}</th>
              <td>{one.source}</td>
              <td>
                <code>{one.sample.slice(0, 80)}</code>
              </td>
              <td className="numeric figure muted">{ago(one.at, now)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
