// The one animation frame loop: whoever changed something asks for a frame, and in it every part is drawn from the same
// snapshot of `live`. A hidden tab draws nothing; it catches up with one frame when it is shown again.

type Drawer = (nowMs: number) => void;

const drawers = new Set<Drawer>();
let requested = false;

export const frames = { count: 0, slowestMs: 0 };

export function drawSoon(): void {
  if (requested) return;
  requested = true;
  requestAnimationFrame(draw);
}

function draw(nowMs: number): void {
  requested = false;
  const start = performance.now();
  for (const drawer of drawers) drawer(nowMs);
  frames.count += 1;
  frames.slowestMs = Math.max(frames.slowestMs, performance.now() - start);
}

/** Adds a part to the loop; returns how to take it out again. */
export function addDrawer(drawer: Drawer): () => void {
  drawers.add(drawer);
  drawSoon();
  return () => drawers.delete(drawer);
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) drawSoon();
});
