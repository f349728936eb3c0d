// SPDX-License-Identifier: Apache-2
// All pictures, drawn here on a 20-unit grid with the text's own colour: no icon package, no font, no request.
import type { ReactElement } from 'react';
import type { Outcome } from '../outcome.ts';

const PATHS = {
  // What a service is.
  client: 'M10 10a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4ZM3.8 16.6c.6-3 3.1-4.6 6.2-4.6s5.6 1.6 6.2 4.6',
  service: 'M10 2.8 16.2 6.3v7.4L10 17.2 3.8 13.7V6.3ZM3.8 6.3 10 9.9l6.2-3.6M10 9.9v7.3',
  gateway: 'M3 17V7.5C3 5 6 3 10 3s7 2 7 4.5V17M3 17h14M6.5 11h7m-2.8-2.8L13.5 11l-2.8 2.8',
  database: 'M4 5.2C4 3.9 6.7 3 10 3s6 .9 6 2.2-2.7 2.2-6 2.2-6-.9-6-2.2Zm0 0v9.6C4 16.1 6.7 17 10 17s6-.9 6-2.2V5.2M4 10c0 1.3 2.7 2.2 6 2.2s6-.9 6-2.2',
  queue: 'M3.5 5.5h13v3h-13ZM3.5 11.5h13v3h-13Z',
  function: 'M5 16.5 9.5 8 7.9 4.3C7.6 3.6 7 3.3 6.2 3.3H5.5M9.5 8l4 7.4c.4.8 1 1.1 1.8 1.1h.4',
  remote: 'M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM3 10h14M10 3c2 2 2.9 4.3 2.9 7s-.9 5-2.9 7c-2-2-2.9-4.3-2.9-7S8 5 10 3Z',
  proxy: 'M10 2.8 16 5v4.8c0 3.5-2.4 6-6 7.4-3.6-1.4-6-3.9-6-7.4V5Z',
  bucket: 'M4 5.5h12l-1.6 10.2c-.1.7-.6 1.1-1.3 1.1H6.9c-.7 0-1.2-.4-1.3-1.1ZM3.2 5.5h13.6',
  unknown: 'M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM7.9 8a2.1 2.1 0 1 1 3.2 1.8c-.7.4-1.1.9-1.1 1.7M10 13.8v.1',
  // How a call ended.
  ok: 'M4.5 10.5 8.3 14.3 15.5 6.5',
  error: 'M10 3.5 17.5 16.5h-15ZM10 8.3v3.7M10 14.2v.1',
  throttle: 'M5 3.5h10M5 16.5h10M6.2 3.5c0 3.7 2.5 4.5 3.8 6.5 1.3-2 3.8-2.8 3.8-6.5M6.2 16.5c0-3.7 2.5-4.5 3.8-6.5 1.3 2 3.8 2.8 3.8 6.5',
  fault: 'M5.5 5.5 14.5 14.5M14.5 5.5 5.5 14.5',
  // What can be done.
  pause: 'M7 5v10M13 5v10',
  play: 'M7 4.5 15 10 7 15.5Z',
  refresh: 'M16 6.5A7 7 0 1 0 17 10.8M16.3 3v3.7h-3.7',
  close: 'M5.5 5.5 14.5 14.5M14.5 5.5 5.5 14.5',
  copy: 'M7.5 7.5h8.5V16H7.5ZM12.5 7.5V4H4v8.5h3.5',
  plus: 'M10 4.5v11M4.5 10h11',
  minus: 'M4.5 10h11',
  fit: 'M3.5 7.5v-4h4M12.5 3.5h4v4M16.5 12.5v4h-4M7.5 16.5h-4v-4',
  tidy: 'M3.5 4h5v4h-5ZM11.5 4h5v4h-5ZM3.5 12h5v4h-5ZM11.5 12h5v4h-5Z',
  search: 'M9 14.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11ZM13 13l4 4',
  map: 'M5 7.5a2 2 0 1 0 0-4 2 2 0 0 0 0 4ZM15 12a2 2 0 1 0 0-4 2 2 0 0 0 0 4ZM5 16.5a2 2 0 1 0 0-4 2 2 0 0 0 0 4ZM7 6l6 3.2M7 14l6-3.2',
  table: 'M3.5 4.5h13v11h-13ZM3.5 8.5h13M8.5 8.5v7',
  list: 'M3.5 5.5h4M3.5 10h8.5M7 14.5h9.5M10.5 5.5h6',
  right: 'M8 5.5 12.5 10 8 14.5',
  arrow: 'M4 10h12m-4-4 4 4-4 4',
  back: 'M16 10H4m4-4-4 4 4 4',
  clock: 'M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM10 6v4.2l2.8 1.6',
  keyboard: 'M2.5 5.5h15v9h-15ZM5.5 8.3v.1M8.5 8.3v.1M11.5 8.3v.1M14.5 8.3v.1M6.5 11.8h7',
  unplugged: 'M7.5 3v4M12.5 3v4M5 7h10v2.5a5 5 0 0 1-10 0ZM10 14.5V17',
} as const;

export type IconName = keyof typeof PATHS;

/** Decorative: the word beside it, or the control's label, is what is read aloud. */
export function Icon({ name, size = 18 }: { name: IconName; size?: number }): ReactElement {
  return (
    <svg className="icon" viewBox="0 0 20 20" width={size} height={size} aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** For use inside another SVG, centred on its origin. */
export function Glyph({ name, size = 18 }: { name: IconName; size?: number }): ReactElement {
  return (
    <g className="icon" transform={`scale(${size / 20}) translate(-10 -10)`} aria-hidden="true">
      <path d={PATHS[name]} />
    </g>
  );
}

export const outcomeIcon = (outcome: Outcome): IconName => outcome;

const TYPES: readonly (readonly [RegExp, IconName])[] = [
  [/^client$/, 'client'],
  [/gateway|loadbalanc|::elb/, 'gateway'],
  [/appmesh::proxy|sidecar/, 'proxy'],
  [/dynamodb|database|sql|redis|elasticache|mongo|::rds/, 'database'],
  [/sqs|sns|queue|kafka|kinesis|messaging|eventbridge/, 'queue'],
  [/lambda|function/, 'function'],
  [/s3/, 'bucket'],
  [/^remote$/, 'remote'],
];

export function typeIcon(type: string): IconName {
  const lower = type.toLowerCase();
  return TYPES.find(([pattern]) => pattern.test(lower))?.[1] ?? 'service';
}

/** "AWS::DynamoDB::Table" → "DynamoDB table"; what says nothing to a reader says nothing here. */
export function typeText(type: string): string {
  if (type === '' || type === 'unknown') return 'Service';
  if (type === 'AWS::AppMesh::Proxy') return 'Mesh node';
  const parts = type.split('::').filter((part) => part !== 'AWS');
  const words = parts.length > 1 ? [parts[0], ...parts.slice(1).map((part) => part.toLowerCase())] : parts;
  const text = words.join(' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}
