// SPDX-License-Identifier: Apache-2.0
// Serves `dist/` below a prefix as the collector would behind a proxy: strict CSP by header, and answers that a test sets.
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import * as sample from './sample.ts';

export const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
};

export type Answer = { status: number; body: unknown } | 'hang up' | 'never';
export type Api = (path: string, query: URLSearchParams) => Answer;

export const storefront: Api = (path, query) => {
  const now = Date.now();
  if (path === 'map') return { status: 200, body: sample.map(query.get('collapse') !== 'false') };
  if (path === 'traces') return { status: 200, body: sample.traces(now, Number(query.get('limit'))) };
  if (path === `traces/${sample.TRACE}`) return { status: 200, body: sample.trace(now) };
  return { status: 404, body: { message: `no trace ${path.slice('traces/'.length)}` } };
};

export interface Served {
  url: string;
  /** What is answered from now on. */
  answer: (api: Api) => void;
  asked: string[];
  close: () => Promise<void>;
}

export async function serve(dist: string, prefix = '/ui/', port = 0): Promise<Served> {
  let api: Api = storefront;
  const asked: string[] = [];
  const server: Server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://host');
    if (!url.pathname.startsWith(prefix)) return void response.writeHead(404).end();
    const path = url.pathname.slice(prefix.length);
    const [, asking] = /^pillion\/v1\/(.*)$/.exec(path) ?? [];
    if (asking === undefined) return void file(dist, path, response);
    asked.push(`${asking}${url.search}`);
    say(api(decodeURIComponent(asking), url.searchParams), request, response);
  });
  await new Promise<void>((listening) => server.listen(port, '127.0.0.1', listening));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${prefix}`,
    answer: (next) => (api = next),
    asked,
    close: () =>
      new Promise((closed) => {
        server.close(() => closed());
        server.closeAllConnections();
      }),
  };
}

function say(answer: Answer, request: IncomingMessage, response: ServerResponse): void {
  if (answer === 'never') return;
  if (answer === 'hang up') return void request.socket.destroy();
  response.writeHead(answer.status, { 'content-type': 'application/json' });
  response.end(typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body));
}

async function file(dist: string, path: string, response: ServerResponse): Promise<void> {
  const name = path === '' ? 'index.html' : normalize(path);
  try {
    const body = await readFile(join(dist, name));
    response.writeHead(200, {
      'content-type': TYPES[extname(name)] ?? 'application/octet-stream',
      'content-security-policy': CSP,
      'x-content-type-options': 'nosniff',
    });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
}
