const BARS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'] as const;

/** A curve in `width` characters: neighbours are averaged when there are more values than characters. */
export function sparkline(values: readonly number[], width: number): string {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0 || width < 1) return '';
  const points = averaged(finite, Math.min(width, finite.length));
  const low = Math.min(...points);
  const range = Math.max(...points) - low;
  return points.map((value) => BARS[range === 0 ? 0 : Math.round(((value - low) / range) * (BARS.length - 1))]).join('');
}

function averaged(values: readonly number[], count: number): number[] {
  return Array.from({ length: count }, (_, index) => {
    const group = values.slice(Math.floor((index * values.length) / count), Math.floor(((index + 1) * values.length) / count));
    return group.reduce((sum, value) => sum + value, 0) / group.length;
  });
}
