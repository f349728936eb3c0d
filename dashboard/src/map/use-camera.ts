// SPDX-License-Identifier: Apache-2.0
// Pan and zoom of the map by pointer, wheel, buttons and keys. Fits the whole map until the reader moves it.
import { useCallback, useEffect, useLayoutEffect, useRef, useState, type PointerEvent, type RefObject } from 'react';

export interface Camera {
  x: number;
  y: number;
  scale: number;
  /** Whether to arrive softly: at steps, not under the pointer. */
  glide?: boolean;
}

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

const MOST = 2.5;
const LEAST = 0.03;
/** No larger than this when fitting: three services need not fill the wall. */
const COSY = 1.15;
const PADDING = 48;
/** Half of what must be seen around a revealed point, before scaling: a card and some air. */
const REVEALED = { x: 130, y: 70 };
/** A press that moves less is a click. */
const SLACK = 4;

export function fit(box: Box, width: number, height: number): Camera {
  const scale = Math.max(
    LEAST,
    Math.min(COSY, (width - 2 * PADDING) / Math.max(1, box.width), (height - 2 * PADDING) / Math.max(1, box.height)),
  );
  return {
    scale,
    glide: true,
    x: width / 2 - (box.x + box.width / 2) * scale,
    y: height / 2 - (box.y + box.height / 2) * scale,
  };
}

/** Zooms so that the point under (x, y) stays where it is. */
export function zoomAt(camera: Camera, factor: number, x: number, y: number): Camera {
  const scale = Math.min(MOST, Math.max(LEAST, camera.scale * factor));
  const ratio = scale / camera.scale;
  return { scale, x: x - (x - camera.x) * ratio, y: y - (y - camera.y) * ratio };
}

interface Hold {
  pointer: number;
  x: number;
  y: number;
  from: Camera;
  moved: boolean;
}

export interface CameraControl {
  camera: Camera;
  zoom: (factor: number) => void;
  fitAll: () => void;
  /** Moves the rectangle around the point into view, left of what covers the right side, and no further than needed. */
  reveal: (at: { x: number; y: number }, covered: number) => void;
  /** Whether the reader has left the view alone. */
  isFitted: () => boolean;
  handlers: {
    onPointerDown: (event: PointerEvent) => void;
    onPointerMove: (event: PointerEvent) => void;
    onPointerUp: (event: PointerEvent) => void;
    onClickCapture: (event: { stopPropagation: () => void }) => void;
  };
}

export function useCamera(svg: RefObject<SVGSVGElement | null>, box: Box): CameraControl {
  const [camera, setCamera] = useState<Camera>({ x: 0, y: 0, scale: 1 });
  const [size, setSize] = useState({ width: 0, height: 0 });
  const free = useRef(false);
  const hold = useRef<Hold | null>(null);
  const dragged = useRef(false);

  useLayoutEffect(() => {
    const element = svg.current;
    if (!element) return undefined;
    const measure = (): void => setSize({ width: element.clientWidth, height: element.clientHeight });
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    measure();
    return () => watch.disconnect();
  }, [svg]);

  const { x, y, width, height } = box;
  useLayoutEffect(() => {
    if (size.width > 0 && !free.current) setCamera(fit({ x, y, width, height }, size.width, size.height));
  }, [x, y, width, height, size]);

  // React listens to wheel passively; only a listener of our own may keep the page from scrolling.
  useEffect(() => {
    const element = svg.current;
    if (!element) return undefined;
    const wheel = (event: WheelEvent): void => {
      event.preventDefault();
      free.current = true;
      const { left, top } = element.getBoundingClientRect();
      const factor = Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015));
      setCamera((last) => zoomAt(last, factor, event.clientX - left, event.clientY - top));
    };
    element.addEventListener('wheel', wheel, { passive: false });
    return () => element.removeEventListener('wheel', wheel);
  }, [svg]);

  const fitAll = useCallback(() => {
    free.current = false;
    setCamera(fit({ x, y, width, height }, size.width, size.height));
  }, [x, y, width, height, size]);

  const zoom = useCallback(
    (factor: number) => {
      free.current = true;
      setCamera((last) => ({ ...zoomAt(last, factor, size.width / 2, size.height / 2), glide: true }));
    },
    [size],
  );

  const isFitted = useCallback(() => !free.current, []);

  const reveal = useCallback(
    (at: { x: number; y: number }, covered: number) =>
      setCamera((last) => {
        if (size.width === 0) return last;
        const [sx, sy] = [at.x * last.scale + last.x, at.y * last.scale + last.y];
        const dx = into(sx, REVEALED.x * last.scale, size.width - covered);
        const dy = into(sy, REVEALED.y * last.scale, size.height);
        return dx === 0 && dy === 0 ? last : { ...last, x: last.x + dx, y: last.y + dy, glide: true };
      }),
    [size],
  );

  const handlers = {
    onPointerDown: (event: PointerEvent): void => {
      if (event.button !== 0) return;
      dragged.current = false;
      hold.current = { pointer: event.pointerId, x: event.clientX, y: event.clientY, from: camera, moved: false };
    },
    onPointerMove: (event: PointerEvent): void => {
      const held = hold.current;
      if (!held || held.pointer !== event.pointerId) return;
      const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
      if (!held.moved && Math.hypot(dx, dy) < SLACK) return;
      if (!held.moved) svg.current?.setPointerCapture(event.pointerId);
      held.moved = true;
      dragged.current = true;
      free.current = true;
      setCamera({ ...held.from, x: held.from.x + dx, y: held.from.y + dy, glide: false });
    },
    onPointerUp: (event: PointerEvent): void => {
      if (hold.current?.pointer === event.pointerId) hold.current = null;
    },
    onClickCapture: (event: { stopPropagation: () => void }): void => {
      if (dragged.current) event.stopPropagation();
      dragged.current = false;
    },
  };

  return { camera, zoom, fitAll, reveal, handlers, isFitted };
}

/** How far to move `at` so that it lies `margin` inside both borders; the near border wins where there is no room. */
function into(at: number, margin: number, size: number): number {
  if (at > size - margin) return Math.max(size - margin, margin) - at;
  return at < margin ? margin - at : 0;
}
