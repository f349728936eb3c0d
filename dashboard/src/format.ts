// SPDX-License-Identifier: Apache-2.0
// Numbers as people read them. Pure, one locale, so that screenshots and bookmarks look alike everywhere.

const NARROW = '\u202f';
const whole = new Intl.NumberFormat('en');

/** Three significant digits, never an exponent. */
function digits(value: number): string {
  if (value >= 100) return whole.format(Math.round(value));
  if (value >= 10) return trim(value.toFixed(1));
  return trim(value.toFixed(2));
}

function trim(text: string): string {
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** 1234 → "1,234"; from 10,000 on "12.3k", "4.5M". */
export function count(value: number): string {
  if (!Number.isFinite(value)) return '–';
  if (value < 10_000) return whole.format(Math.round(value));
  if (value < 999_500) return `${digits(value / 1000)}k`;
  return `${digits(value / 1_000_000)}M`;
}

/** Calls over a window. Below one per second a per-minute figure is easier to picture than "0.02/s". */
export function rate(calls: number, seconds: number): string {
  if (!(seconds > 0) || !Number.isFinite(calls)) return '–';
  const perSecond = calls / seconds;
  if (perSecond === 0) return '0/s';
  if (perSecond >= 1) return `${digits(perSecond)}/s`;
  const perMinute = perSecond * 60;
  if (perMinute >= 0.1) return `${digits(perMinute)}/min`;
  return '<0.1/min';
}

/** Milliseconds in the unit that leaves two or three digits. */
export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return '–';
  if (ms === 0) return `0${NARROW}ms`;
  if (ms < 0) return `−${duration(-ms)}`;
  if (ms < 0.0995) return `${digits(ms * 1000)}${NARROW}µs`;
  if (ms < 999.5) return `${digits(ms)}${NARROW}ms`;
  if (ms < 59_950) return `${digits(ms / 1000)}${NARROW}s`;
  const minutes = Math.floor(ms / 60_000);
  const seconds = Math.round((ms - minutes * 60_000) / 1000);
  if (seconds === 60) return `${minutes + 1}${NARROW}min`;
  return seconds === 0 ? `${minutes}${NARROW}min` : `${minutes}${NARROW}min ${seconds}${NARROW}s`;
}

/** A share as a percentage that never rounds a real failure away, nor to a false "100 %". */
export function percent(share: number | null): string {
  if (share === null || !Number.isFinite(share)) return '–';
  const value = share * 100;
  if (value === 0 || value === 100) return `${value}${NARROW}%`;
  if (value < 0.1) return `<0.1${NARROW}%`;
  if (value > 99.9) return `>99.9${NARROW}%`;
  return `${trim(value.toFixed(1))}${NARROW}%`;
}

/** "just now", "42 s ago", "3 min ago", "2 h ago", "5 d ago". */
export function ago(then: number, now: number): string {
  const seconds = Math.max(0, Math.round((now - then) / 1000));
  if (seconds < 2) return 'just now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}

/** Local wall clock, with the date only when it is not today's. */
export function clock(ms: number, now: number): string {
  const then = new Date(ms);
  const time = `${two(then.getHours())}:${two(then.getMinutes())}:${two(then.getSeconds())}`;
  return then.toDateString() === new Date(now).toDateString() ? time : `${localDate(then)} ${time}`;
}

function localDate(date: Date): string {
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** What an `<input type="datetime-local">` reads and writes. */
export function inputTime(ms: number): string {
  const date = new Date(ms);
  return `${localDate(date)}T${two(date.getHours())}:${two(date.getMinutes())}`;
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}
