// SPDX-License-Identifier: Apache-2.0
// What stands where data is not: nothing yet, still coming, went wrong. Each says what to do about it.
import { useState, type ReactElement, type ReactNode } from 'react';
import type { AskError } from '../api/client.ts';
import { clock } from '../format.ts';
import { Icon, type IconName } from './icons.tsx';

export function Notice(props: { icon: IconName; title: string; children: ReactNode }): ReactElement {
  return (
    <div className="notice">
      <span className="notice-icon">
        <Icon name={props.icon} size={26} />
      </span>
      <h2>{props.title}</h2>
      {props.children}
    </div>
  );
}

export function Command({ text, label }: { text: string; label: string }): ReactElement {
  return (
    <div className="command">
      <span className="command-label">{label}</span>
      <code>{text}</code>
      <Copy text={text} what={`“${text}”`} />
    </div>
  );
}

/** Text with `code` in backticks, as error remedies are written. */
export function Prose({ text }: { text: string }): ReactElement {
  return <>{text.split('`').map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</>;
}

export function Copy({ text, what }: { text: string; what: string }): ReactElement {
  const [copied, setCopied] = useState(false);
  const copy = (): void => {
    void navigator.clipboard?.writeText(text).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    });
  };
  return (
    <button type="button" className="button quiet icon-only" onClick={copy} title={copied ? 'Copied' : 'Copy'}>
      <Icon name={copied ? 'ok' : 'copy'} size={15} />
      <span className="hidden">{copied ? 'Copied' : `Copy ${what}`}</span>
    </button>
  );
}

export function Failed({ problem, retry }: { problem: AskError; retry: () => void }): ReactElement {
  return (
    <div role="alert">
      <Notice icon="unplugged" title={problem.title}>
        <p>
          <Prose text={problem.remedy} />
        </p>
        <button type="button" className="button primary" onClick={retry}>
          Try again
        </button>
      </Notice>
    </div>
  );
}

/** Over data that is still shown although the latest ask failed. */
export function StaleBanner(props: { problem: AskError; at: number | null; retry: () => void }): ReactElement {
  return (
    <div className="banner" role="alert">
      <Icon name="error" size={16} />
      <span>
        <strong>{props.problem.title}.</strong> <Prose text={props.problem.remedy} />
        {props.at !== null && ` Shown is the state of ${clock(props.at, Date.now())}.`}
      </span>
      <button type="button" className="button" onClick={props.retry}>
        Try again
      </button>
    </div>
  );
}

export function Loading({ what, rows = 6 }: { what: string; rows?: number }): ReactElement {
  return (
    <div className="loading" role="status">
      <span className="hidden">Loading {what}</span>
      {Array.from({ length: rows }, (_, row) => (
        <div key={row} className="skeleton" />
      ))}
    </div>
  );
}

export function NoTraffic({ widen }: { widen: (() => void) | null }): ReactElement {
  const host = window.location.hostname || '127.0.0.1';
  return (
    <Notice icon="map" title="No traffic yet in this time range">
      <p>Services appear here a few seconds after their first traced call. To see some now:</p>
      <div className="commands">
        <Command label="Run the demo storefront" text="pillion demo" />
        <Command label="Point an OpenTelemetry SDK here" text={`OTEL_EXPORTER_OTLP_ENDPOINT=http://${host}:4318`} />
        <Command label="Point an X-Ray SDK here" text={`AWS_XRAY_DAEMON_ADDRESS=${host}:2000`} />
      </div>
      {widen && (
        <button type="button" className="button" onClick={widen}>
          Look at the last 60 minutes
        </button>
      )}
    </Notice>
  );
}
