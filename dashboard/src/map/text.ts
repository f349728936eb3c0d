// SPDX-License-Identifier: Apache-2.0
// How wide drawn text is, and how a long name is cut. SVG text has no ellipsis of its own.

const FONTS = { name: '650 14px', figure: '11.5px', mark: '650 11px' } as const;
export type Font = keyof typeof FONTS;

const MOST_REMEMBERED = 4_000;
const known = new Map<string, number>();
let pen: CanvasRenderingContext2D | null | undefined;

/** In the page's own font, remembered: the same figures come again and again. */
export function widthOf(text: string, font: Font): number {
  const key = `${font} ${text}`;
  const before = known.get(key);
  if (before !== undefined) return before;
  pen ??= document.createElement('canvas').getContext('2d');
  if (!pen) return text.length * 8;
  pen.font = `${FONTS[font]} ${getComputedStyle(document.body).fontFamily}`;
  const { width } = pen.measureText(text);
  if (known.size > MOST_REMEMBERED) known.clear();
  known.set(key, width);
  return width;
}

/**
 * The most telling form of a name that fits. What comes before the last slash says least (a mesh's name is on all of
 * its nodes), then the middle: names of one family differ at their ends.
 */
export function cutName(name: string, fits: (text: string) => boolean): string {
  if (fits(name)) return name;
  const tail = name.slice(name.lastIndexOf('/') + 1);
  if (tail !== '' && tail !== name && fits(`…/${tail}`)) return `…/${tail}`;
  const letters = [...(tail === '' ? name : tail)];
  for (let keep = letters.length - 1; keep > 2; keep--) {
    const end = Math.floor(keep / 2);
    const cut = `${letters.slice(0, keep - end).join('')}…${letters.slice(letters.length - end).join('')}`;
    if (fits(cut)) return cut;
  }
  return `${letters[0] ?? ''}…`;
}
