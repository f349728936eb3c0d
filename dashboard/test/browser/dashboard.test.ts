// SPDX-License-Identifier: Apache-2.0
// The built page in a real browser, below a prefix and under the strictest policy, against the made answers of `sample.ts`.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import axe, { type AxeResults } from 'axe-core';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { launch } from './browser.ts';
import { EMPTY, HOSTILE, map, TRACE } from './sample.ts';
import { serve, storefront, type Served } from './serve.ts';

const DIST = join(import.meta.dirname, '../../dist');
const SHOTS = process.env['SHOTS'];
const BUDGET_KB = 230;

let browser: Browser;
let context: BrowserContext;
let page: Page;
let served: Served;
let complaints: string[];

beforeAll(async () => {
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
});

beforeEach(async () => {
  served = await serve(DIST);
  await fresh({});
});

afterEach(async () => {
  await context.close();
  await served.close();
});

/** A new page that notes everything a browser complains of, policy violations included. */
async function fresh(options: { colorScheme?: 'light' | 'dark'; width?: number }): Promise<void> {
  await context?.close();
  context = await browser.newContext({
    viewport: { width: options.width ?? 1440, height: 860 },
    colorScheme: options.colorScheme ?? 'light',
    reducedMotion: 'reduce',
  });
  page = await context.newPage();
  page.setDefaultTimeout(10_000);
  complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('request', (request) => {
    if (!request.url().startsWith(served.url)) complaints.push(`asked elsewhere: ${request.url()}`);
  });
}

const open = (query = ''): Promise<unknown> => page.goto(served.url + query);
const node = (name: string) => page.locator(`[data-node="${name}"]`);
const shot = async (name: string): Promise<void> => {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`) });
};

async function violations(): Promise<string[]> {
  // By the debugger, so that the page's own policy stays as strict as it is served.
  await page.evaluate(axe.source);
  const { violations: found } = (await page.evaluate('axe.run()')) as AxeResults;
  return found
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`);
}

describe('the map', () => {
  test('shows every service and every call with its rate, and the failures where they happen', async () => {
    await open();
    await node('payments').waitFor();
    expect(await page.locator('[data-node]').count()).toBe(map(true).nodes.length);
    expect(await page.locator('[data-edge]').count()).toBe(map(true).edges.length);
    expect(await page.locator('[data-label="web payments"]').textContent()).toContain('7.37/s');
    expect(await page.locator('[data-label="web payments"]').textContent()).toMatch(/7\.7.%.5xx/);
    expect(await page.locator('[data-label="web catalog-v1"]').textContent()).not.toContain('5xx');
    expect(await node('cart').getByRole('button').getAttribute('aria-label')).toContain('4xx');
    await shot('map');
    expect(complaints).toEqual([]);
  });

  test('leaves everything in its place when it refreshes, and when a service appears', async () => {
    await open();
    await node('web').waitFor();
    const placesOf = (): Promise<string[]> =>
      page.locator('[data-node]').evaluateAll((all) => all.map((one) => `${one.getAttribute('data-node')} ${one.getAttribute('transform')}`));
    const before = await placesOf();
    served.answer((path, query) => {
      const known = map(true);
      if (path !== 'map') return storefront(path, query);
      const figures = { total: 9, ok: 9, error: 0, fault: 0, throttle: 0 };
      return {
        status: 200,
        body: {
          nodes: [...[...known.nodes].reverse(), { id: 'search', name: 'search', type: 'unknown', ...figures }],
          edges: [...[...known.edges].reverse(), { source: 'web', target: 'search', ...figures }],
        },
      };
    });
    await page.getByRole('button', { name: 'Refresh now' }).click();
    await node('search').waitFor();
    const after = await placesOf();
    for (const place of before) expect(after).toContain(place);
  });

  test('opens the details of a service, and of a call, by clicking', async () => {
    await open();
    await node('payments').click();
    const panel = page.getByRole('complementary', { name: 'Details of payments' });
    await panel.getByRole('heading', { name: 'payments' }).waitFor();
    const text = (await panel.textContent()) ?? '';
    for (const part of ['7.37/s', '2,210', 'Called by', 'web', 'p99', 'Recent traces', 'POST /checkout']) expect(text).toContain(part);
    expect(page.url()).toContain('node=payments');
    await page.locator('[data-label="web cart"]').click();
    await page.getByRole('complementary', { name: 'Details of web to cart' }).waitFor();
    expect(page.url()).toContain('from=web&to=cart');
    await page.goBack();
    await panel.waitFor();
    await page.keyboard.press('Escape');
    await panel.waitFor({ state: 'detached' });
  });

  test('can be walked with the keyboard alone', async () => {
    await open();
    await node('client').waitFor();
    await node('client').getByRole('button').focus();
    for (const expected of ['gateway', 'web']) {
      await page.keyboard.press('ArrowRight');
      expect(await page.evaluate(() => document.activeElement?.closest('[data-node]')?.getAttribute('data-node'))).toBe(expected);
    }
    await page.keyboard.press('Enter');
    await page.getByRole('complementary', { name: 'Details of web' }).waitFor();
  });

  test('tells the same in tables, sorted by any column', async () => {
    await open('?table=1');
    const calls = page.getByRole('table', { name: /^Calls/ });
    await calls.waitFor();
    expect(await calls.locator('tbody tr').count()).toBe(map(true).edges.length);
    await calls.getByRole('button', { name: '5xx' }).click();
    expect(await calls.locator('tbody tr').first().textContent()).toContain('171');
    await shot('table');
  });

  test('pans and zooms, and comes back', async () => {
    await open();
    await node('web').waitFor();
    const boxOf = async (): Promise<number[]> => Object.values((await node('web').boundingBox()) ?? {}).map(Math.round);
    const before = await boxOf();
    await page.mouse.move(700, 700);
    await page.mouse.down();
    await page.mouse.move(800, 600, { steps: 4 });
    await page.mouse.up();
    const panned = await boxOf();
    expect(panned[0]).toBe((before[0] ?? 0) + 100);
    await page.mouse.wheel(0, -300);
    await page.waitForFunction((width) => (document.querySelector('[data-node="web"]')?.getBoundingClientRect().width ?? 0) > width, (before[2] ?? 0) + 20);
    await page.getByRole('button', { name: 'Show all' }).click();
    await page.waitForFunction((left) => Math.round(document.querySelector('[data-node="web"]')?.getBoundingClientRect().left ?? 0) === left, before[0]);
  });
});

describe('time', () => {
  test('pauses on a moment that the address keeps, and goes on', async () => {
    await open();
    await node('web').waitFor();
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.getByText(/^Paused at/).waitFor();
    const at = new URL(page.url()).searchParams.get('at');
    expect(Number(at)).toBeGreaterThan(1_700_000_000);
    await page.reload();
    await node('web').waitFor();
    expect(served.asked.at(-1)).toContain(`end=${at}`);
    await page.getByRole('button', { name: 'Resume' }).click();
    await page.getByText(/^Live/).waitFor();
  });

  test('of one’s own choice is checked, asked for and kept in the address', async () => {
    await open();
    await page.getByRole('button', { name: 'Custom' }).click();
    await page.getByLabel('From', { exact: true }).fill('2026-11-24T10:00');
    await page.getByLabel('To', { exact: true }).fill('2026-11-24T09:00');
    await page.getByRole('button', { name: 'Show', exact: true }).click();
    await page.getByText('The start must be before the end.').waitFor();
    await page.getByLabel('To', { exact: true }).fill('2026-11-24T10:30');
    await page.getByRole('button', { name: 'Show', exact: true }).click();
    await page.getByText('Fixed range').waitFor();
    const asked = new URL(page.url()).searchParams;
    expect(Number(asked.get('end')) - Number(asked.get('start'))).toBe(1800);
    expect(served.asked.some((one) => one.includes(`start=${asked.get('start')}&end=${asked.get('end')}`))).toBe(true);
  });
});

describe('traces', () => {
  test('are listed newest first, narrowed, and opened as a waterfall', async () => {
    await open('?view=traces');
    const rows = page.locator('table.traces tbody tr');
    await rows.first().waitFor();
    expect(await rows.count()).toBe(100);
    await page.getByRole('group', { name: 'Outcome' }).getByRole('button', { name: '429' }).click();
    for (const text of await rows.allTextContents()) expect(text).toContain('429');
    await page.getByRole('group', { name: 'Outcome' }).getByRole('button', { name: 'All' }).click();
    await shot('traces');
    await rows.first().getByRole('link').click();
    await page.getByRole('treegrid', { name: 'Spans over time' }).waitFor();
    expect(page.url()).toContain(`trace=${TRACE}`);
    expect(complaints).toEqual([]);
  });

  test('show every span, proxies apart, and name what is wrong with some', async () => {
    await open(`?trace=${TRACE}`);
    const rows = page.locator('.span-row');
    await rows.first().waitFor();
    expect(await rows.count()).toBe(21);
    expect(await page.locator('.span-row.is-proxy').count()).toBe(11);
    const text = (await page.getByRole('treegrid').textContent()) ?? '';
    for (const part of ['orphan', 'circle', 'in progress', HOSTILE]) expect(text).toContain(part);
    expect(await page.locator('img').count()).toBe(0);
    await shot('trace');
    await page.getByLabel('Proxy spans').uncheck();
    await page.locator('.span-row.is-proxy').first().waitFor({ state: 'detached' });
    expect(await rows.count()).toBe(10);
  });

  test('open a span with its attributes and its JSON, by mouse and by keys', async () => {
    await open(`?trace=${TRACE}`);
    await page.getByRole('row', { name: /POST \/charge/ }).first().click();
    const panel = page.getByRole('complementary', { name: 'Span POST /charge' });
    await panel.waitFor();
    const text = (await panel.textContent()) ?? '';
    for (const part of ['the bank did not answer', 'http.response.status_code', '503', 'payments · server']) expect(text).toContain(part);
    await panel.getByText('Raw JSON', { exact: true }).click();
    expect(await panel.locator('pre').textContent()).toContain('"start_ns"');
    await page.getByRole('treegrid').focus();
    await page.keyboard.press('Home');
    await page.keyboard.press('Enter');
    await page.getByRole('complementary', { name: 'Span POST checkout' }).waitFor();
    await page.keyboard.press('ArrowLeft');
    await page.waitForFunction(() => document.querySelectorAll('.span-row').length === 4);
    await page.keyboard.press('ArrowRight');
    await page.waitForFunction(() => document.querySelectorAll('.span-row').length === 21);
  });

  test('of ten thousand spans scroll without drawing ten thousand rows', async () => {
    const spans = Array.from({ length: 10_000 }, (_, n) => ({
      id: `s${n}`,
      parent: n === 0 ? null : `s${Math.floor((n - 1) / 4)}`,
      service: `service-${n % 11}`,
      name: `step ${n}`,
      start_ns: String(1_763_996_400_000_000_000n + BigInt(n) * 1000n),
      duration_ms: 5,
      outcome: 'ok',
    }));
    served.answer(() => ({ status: 200, body: { id: TRACE, spans } }));
    await open(`?trace=${TRACE}`);
    await page.locator('.span-row').first().waitFor();
    expect(await page.locator('.span-row').count()).toBeLessThan(80);
    await page.getByRole('treegrid').focus();
    await page.keyboard.press('End');
    await page.locator('.span-row[aria-rowindex="10000"]').waitFor();
  });

  test('that are not there say so, and how that can be', async () => {
    await open('?trace=00000000000000000000000000000001');
    await page.getByRole('alert').getByText(/retention/).waitFor();
    await page.getByRole('link', { name: 'Traces', exact: true }).first().click();
    await page.locator('table.traces').waitFor();
  });
});

describe('without data', () => {
  test('the page says how to get some', async () => {
    served.answer(() => ({ status: 200, body: EMPTY }));
    await open();
    await page.getByRole('heading', { name: /No traffic yet/ }).waitFor();
    expect(await page.locator('main').textContent()).toContain('pillion demo');
    expect(await violations()).toEqual([]);
    await shot('empty');
    await page.getByRole('button', { name: /last 60 minutes/ }).click();
    expect(page.url()).toContain('range=60m');
  });

  test('an unreachable collector is named, with what to start', async () => {
    served.answer(() => 'hang up');
    await open();
    await page.getByRole('alert').getByText(/cannot be reached/).waitFor();
    expect(await page.getByRole('alert').textContent()).toContain('pillion-collector');
    await shot('unreachable');
    served.answer(storefront);
    await page.getByRole('button', { name: 'Try again' }).click();
    await node('web').waitFor();
  });

  test('an answer that is no JSON, and a refusal, are told apart', async () => {
    served.answer(() => ({ status: 200, body: '<html>login</html>' }));
    await open();
    await page.getByRole('alert').getByText(/did not answer with JSON/).waitFor();
    served.answer(() => ({ status: 400, body: { message: 'start must lie before end' } }));
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByRole('alert').getByText(/start must lie before end/).waitFor();
  });

  test('the last good map stays when the collector goes away', async () => {
    await open();
    await node('web').waitFor();
    served.answer(() => 'hang up');
    await page.getByRole('button', { name: 'Refresh now' }).click();
    await page.getByRole('alert').getByText(/Shown is the state of/).waitFor();
    expect(await node('web').count()).toBe(1);
  });

  test('waiting looks like waiting', async () => {
    served.answer(() => 'never');
    await open();
    await page.getByRole('status').getByText('Loading service map').waitFor({ state: 'attached' });
  });
});

describe('everyone', () => {
  const SCREENS = {
    map: '',
    'map with details': '?node=payments',
    'map of sidecars with details of a call': '?raw=1&from=web&to=payments',
    tables: '?table=1',
    traces: '?view=traces',
    trace: `?trace=${TRACE}&span=00000000000000f0`,
  };
  for (const [name, query] of Object.entries(SCREENS)) {
    for (const colorScheme of ['light', 'dark'] as const) {
      test(`can use the ${name} in ${colorScheme}: axe finds nothing serious`, async () => {
        await fresh({ colorScheme });
        await open(query);
        await page.locator('[data-node="web"], table.traces, table.table, .span-row').first().waitFor();
        expect(await violations()).toEqual([]);
        expect(complaints).toEqual([]);
        await shot(`${name.replaceAll(' ', '-')}-${colorScheme}`);
      });
    }
  }

  test('can use the custom range and the list of keys', async () => {
    await open();
    await node('web').waitFor();
    await page.getByRole('button', { name: 'Custom' }).click();
    expect(await violations()).toEqual([]);
    await page.keyboard.press('Escape');
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    expect(await violations()).toEqual([]);
  });

  test('with a narrow window sees the map and the details', async () => {
    await fresh({ width: 640 });
    await open('?node=web');
    await page.getByRole('complementary', { name: 'Details of web' }).waitFor();
    const [map, panel] = [await page.locator('.map').boundingBox(), await page.locator('.panel').boundingBox()];
    expect(map?.height).toBeGreaterThan(150);
    expect((map?.y ?? 0) + (map?.height ?? 0)).toBeLessThanOrEqual((panel?.y ?? 0) + 1);
    await shot('narrow');
  });
});

test(`the whole page is at most ${BUDGET_KB} KB compressed, and asks nobody else`, async () => {
  const names = (await readdir(DIST, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const sizes = await Promise.all(names.map(async ({ parentPath, name }) => gzipSync(await readFile(join(parentPath, name)), { level: 9 }).length));
  expect(sizes.reduce((sum, size) => sum + size, 0) / 1024).toBeLessThan(BUDGET_KB);
  const html = await readFile(join(DIST, 'index.html'), 'utf8');
  expect(html).not.toMatch(/(?:src|href)="(?:\/|https?:)/);
});

test('a map of five hundred services costs the page less than two seconds of processor time', async () => {
  const figures = { total: 90, ok: 90, error: 0, fault: 0, throttle: 0, latency: { p99_ms: 4 } };
  const nodes = Array.from({ length: 500 }, (_, n) => ({ id: `s${n}`, name: `s${n}`, type: 'unknown', ...figures }));
  const edges = Array.from({ length: 1200 }, (_, n) => {
    const layer = n % 7;
    const pick = (at: number, salt: number): string => `s${at * 62 + ((n * salt) % 62)}`;
    return { source: pick(layer, 31), target: pick(layer + 1, 17), ...figures };
  });
  served.answer(() => ({ status: 200, body: { nodes, edges } }));
  // In the page's own processor time: the machine may be busy with a build at the same time.
  const debug = await context.newCDPSession(page);
  await debug.send('Performance.enable', { timeDomain: 'threadTicks' });
  await open();
  await node('s499').waitFor();
  const { metrics } = await debug.send('Performance.getMetrics');
  const took = metrics.find(({ name }) => name === 'TaskDuration')?.value;
  expect(await page.locator('[data-node]').count()).toBe(500);
  expect(took).toBeGreaterThan(0);
  expect(took).toBeLessThan(2);
});
