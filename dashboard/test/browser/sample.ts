// SPDX-License-Identifier: Apache-2.0
// A storefront's answers in the collector's own JSON, with times that end at `now`. The awkward cases are in it on
// purpose: a fault, a throttle, an orphan, a circle, a span in progress, and text that would break out of HTML.

const MESH = 'AWS::AppMesh::Proxy';

export const HOSTILE = '<img src=x onerror=alert(1)>';
export const TRACE = '67432c1a8f0e4d6b9a1c2d3e4f506172';
export const EMPTY = { nodes: [], edges: [] };

function counts(total: number, error: number, throttle: number, fault: number): Record<string, number> {
  return { total, ok: total - error - fault, error, fault, throttle };
}

function latency(p50: number): Record<string, number> {
  return { p50_ms: p50, p90_ms: p50 * 2.1, p99_ms: p50 * 4.7, mean_ms: p50 * 1.2 };
}

function node(name: string, type: string, figures: Record<string, number>, p50: number): object {
  return { id: name, name, type, ...figures, latency: latency(p50) };
}

function edge(source: string, target: string, figures: Record<string, number>, p50: number): object {
  return { source, target, ...figures, latency: latency(p50), proxy_ms: 0.84 };
}

export function map(collapsed: boolean): { nodes: object[]; edges: object[] } {
  const nodes = [
    node('client', 'client', counts(9000, 96, 0, 171), 21),
    node('gateway', MESH, counts(9000, 96, 0, 171), 20.4),
    node('web', MESH, counts(9000, 96, 0, 171), 18.2),
    node('catalog-v1', MESH, counts(8112, 0, 0, 0), 3.1),
    node('catalog-v2', MESH, counts(888, 0, 0, 0), 2.7),
    node('cart', MESH, counts(4480, 96, 0, 0), 5.9),
    node('payments', MESH, counts(2210, 44, 44, 171), 11.6),
    node('orders', 'AWS::DynamoDB::Table', counts(4480, 0, 0, 0), 1.9),
    node('receipts', 'AWS::SQS::Queue', counts(1995, 0, 0, 0), 4.2),
  ];
  const edges = [
    edge('client', 'gateway', counts(9000, 96, 0, 171), 21),
    edge('gateway', 'web', counts(9000, 96, 0, 171), 19.6),
    edge('web', 'catalog-v1', counts(8112, 0, 0, 0), 4.1),
    edge('web', 'catalog-v2', counts(888, 0, 0, 0), 3.9),
    edge('web', 'cart', counts(4480, 96, 0, 0), 7.2),
    edge('web', 'payments', counts(2210, 44, 44, 171), 13.4),
    edge('cart', 'orders', counts(4480, 0, 0, 0), 1.9),
    edge('payments', 'receipts', counts(1995, 0, 0, 0), 4.2),
  ];
  if (!collapsed) {
    nodes.push(node('web app', 'unknown', counts(9000, 96, 0, 171), 17.1));
    edges.push(edge('web', 'web app', counts(9000, 96, 0, 171), 17.1));
  }
  return { nodes, edges };
}

function outcome(status: number | undefined): string {
  if (status === undefined || status < 400) return 'ok';
  return status === 429 ? 'throttle' : status < 500 ? 'error' : 'fault';
}

const PATHS = ['/', '/catalog?page=2', '/cart', '/checkout', `/search?q=${encodeURIComponent(HOSTILE)}`];

export function traces(now: number, limit: number): { traces: object[]; more: boolean } {
  const rows = Array.from({ length: Math.min(limit, 140) }, (_, index) => {
    const path = PATHS[index % PATHS.length] ?? '/';
    const paying = path === '/checkout';
    const status = paying && index % 3 === 0 ? 503 : index % 23 === 7 ? 429 : index % 17 === 4 ? 404 : 200;
    const start = now - 4_000 - index * 1_730;
    return {
      id: index === 0 ? TRACE : TRACE.slice(0, -4) + String(index).padStart(4, '0'),
      start: start / 1000,
      duration_ms: 8 + ((index * 37) % 61) + (status === 503 ? 120 : 0),
      name: `GET ${path}`,
      root_service: 'gateway',
      method: paying ? 'POST' : 'GET',
      url: `http://shop.local${path}`,
      status,
      outcome: outcome(status),
      worst: index % 13 === 8 ? 'fault' : outcome(status),
      spans: paying ? 14 : 9,
      services: ['gateway', 'web', index % 10 === 3 ? 'catalog-v2' : 'catalog-v1', ...(paying ? ['payments', 'receipts'] : ['cart', 'orders'])],
      partial: false,
    };
  });
  return { traces: rows, more: limit < 140 };
}

interface Made {
  id: string;
  parent: string | null;
  service: string;
  name: string;
  kind: string;
  at: number;
  ms: number;
  status?: number;
  more?: Record<string, unknown>;
}

export function trace(now: number): { id: string; spans: object[] } {
  const start = now - 4_000;
  const proxy = { proxy: true };
  const made: Made[] = [
    { id: 'a1', parent: null, service: 'gateway', name: 'POST checkout', kind: 'server', at: 0, ms: 184.2, status: 503, more: proxy },
    { id: 'a2', parent: 'a1', service: 'gateway', name: 'POST checkout', kind: 'client', at: 0.3, ms: 183.6, status: 503, more: proxy },
    { id: 'b1', parent: 'a2', service: 'web', name: 'POST ingress', kind: 'server', at: 0.8, ms: 182.6, status: 503, more: proxy },
    { id: 'b2', parent: 'b1', service: 'web', name: 'POST /checkout', kind: 'server', at: 1.2, ms: 181.7, status: 503 },
    { id: 'b3', parent: 'b2', service: 'web', name: 'render basket', kind: 'internal', at: 2.1, ms: 6.2 },
    { id: 'c0', parent: 'b2', service: 'web', name: 'GET catalog', kind: 'client', at: 9, ms: 5.6, status: 200, more: proxy },
    { id: 'c1', parent: 'c0', service: 'catalog-v1', name: 'GET ingress', kind: 'server', at: 9.5, ms: 4.7, status: 200, more: proxy },
    { id: 'c2', parent: 'c1', service: 'catalog-v1', name: 'GET /items', kind: 'server', at: 9.8, ms: 4.1, status: 200 },
    ...[0, 1, 2].flatMap((tried): Made[] => [
      { id: `d${tried}`, parent: 'b2', service: 'web', name: 'POST payments', kind: 'client', at: 18 + tried * 54, ms: 48, status: tried === 1 ? 429 : 503, more: proxy },
      { id: `e${tried}`, parent: `d${tried}`, service: 'payments', name: 'POST ingress', kind: 'server', at: 18.6 + tried * 54, ms: 46.8, status: tried === 1 ? 429 : 503, more: proxy },
      { id: `f${tried}`, parent: `e${tried}`, service: 'payments', name: 'POST /charge', kind: 'server', at: 19 + tried * 54, ms: 46, status: tried === 1 ? 429 : 503 },
    ]),
    { id: 'g1', parent: 'b2', service: 'web', name: 'audit', kind: 'producer', at: 180, ms: 0, more: { in_progress: true } },
    { id: 'h1', parent: 'not-arrived', service: 'receipts', name: HOSTILE, kind: 'consumer', at: 96, ms: 22 },
    { id: 'i1', parent: 'i2', service: 'cart', name: 'release stock', kind: 'internal', at: 150, ms: 20 },
    { id: 'i2', parent: 'i1', service: 'cart', name: 'release item', kind: 'internal', at: 154, ms: 9 },
  ];
  return { id: TRACE, spans: made.map((one) => span(one, start)) };
}

function span({ id, parent, service, name, kind, at, ms, status, more }: Made, start: number): object {
  return {
    id: `${id}`.padStart(16, '0'),
    parent: parent === null || parent === 'not-arrived' ? parent : parent.padStart(16, '0'),
    service,
    name,
    kind,
    start_ns: String(BigInt(Math.round((start + at) * 1000)) * 1000n),
    duration_ms: ms,
    in_progress: false,
    outcome: outcome(status),
    status: status ?? null,
    proxy: false,
    message: status === 503 && id.startsWith('f') ? 'the bank did not answer within 40 ms' : null,
    attributes: {
      'http.request.method': name.split(' ')[0],
      'http.response.status_code': status,
      'server.address': `${service}.shop.local`,
      'url.path': '/checkout',
      'user_agent.original': 'curl/8.5.0',
      nested: { list: [1, 2, 3], deep: { yes: true } },
    },
    ...more,
  };
}
