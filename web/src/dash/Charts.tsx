/** Lines and points over the last minutes, drawn as SVG of the page's own colours. */
import { useState } from 'preact/hooks';
import { SHOWN_SECONDS, type Point } from './data';

const WIDTH = 600;
const HEIGHT = 120;

export interface Line {
  name: string;
  values: number[];
  colour: 1 | 2 | 3 | 4;
  area?: boolean;
}

interface Props {
  title: string;
  lines?: Line[];
  points?: { name: string; points: Point[]; colour: 1 | 2 | 3 | 4 }[];
  format: (value: number) => string;
  /** Top of the scale at least. */
  least?: number;
  most?: number;
}

export function Chart({ title, lines = [], points = [], format, least = 1, most }: Props) {
  const [at, setAt] = useState<number | null>(null);
  const all = [...lines.flatMap((line) => line.values), ...points.flatMap((set) => set.points.map((point) => point.value))];
  const top = most ?? nice(Math.max(least, ...all));
  const count = lines[0]?.values.length ?? SHOWN_SECONDS;
  const index = at === null ? null : Math.round(at * (count - 1));
  const latest = (line: Line) => line.values[index ?? Math.max(0, line.values.length - 2)] ?? 0;
  const ago = index === null ? '' : `−${count - 1 - index} s`;
  const spoken = lines.map((line) => `${line.name}: ${format(latest(line))}`).join(', ');
  return (
    <figure class="chart">
      <figcaption>
        <span class="chart-title">{title}</span>
        <span class="keys">
          {lines.map((line) => (
            <span key={line.name}>
              <i class={`key c${line.colour}`} /> {line.name} <b>{format(latest(line))}</b>
            </span>
          ))}
          {points.map((set) => (
            <span key={set.name}>
              <i class={`key dot c${set.colour}`} /> {set.name}
            </span>
          ))}
          <span class="ago">{ago}</span>
        </span>
      </figcaption>
      <div
        class="plot"
        role="img"
        aria-label={`${title}. ${spoken}`}
        onPointerMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          setAt(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
        }}
        onPointerLeave={() => setAt(null)}
      >
        <span class="top-label">{format(top)}</span>
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
          {[0.25, 0.5, 0.75].map((share) => (
            <line key={share} class="grid" x1="0" x2={WIDTH} y1={HEIGHT * share} y2={HEIGHT * share} />
          ))}
          {lines.map((line) => (
            <Series key={line.name} line={line} top={top} />
          ))}
          {at !== null && <line class="cross" x1={at * WIDTH} x2={at * WIDTH} y1="0" y2={HEIGHT} />}
          {points.map((set) => set.points.map((point, i) => {
            const x = WIDTH * (1 - point.ago / SHOWN_SECONDS);
            const y = HEIGHT * (1 - Math.min(point.value / top, 1));
            return x < 0 ? null : <path key={i} class={`point c${set.colour}`} d={`M${x.toFixed(1)} ${y.toFixed(1)}h0.01`} />;
          }))}
        </svg>
      </div>
      <div class="axis" aria-hidden="true">
        <span>−{SHOWN_SECONDS / 60} min</span>
        <span>0</span>
      </div>
    </figure>
  );
}

function Series({ line, top }: { line: Line; top: number }) {
  // The last second is not over: it would always look like a fall.
  const values = line.values.slice(0, -1);
  const step = WIDTH / Math.max(values.length - 1, 1);
  const path = values.map((value, i) => `${i ? 'L' : 'M'}${(i * step).toFixed(1)} ${(HEIGHT * (1 - Math.min(value / top, 1))).toFixed(1)}`).join('');
  return (
    <>
      {line.area && <path class={`area c${line.colour}`} d={`${path}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`} />}
      <path class={`line c${line.colour}`} d={path} />
    </>
  );
}

/** The next of 1, 2, 5, 10, 20 ... */
export function nice(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-6)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999) ?? value;
}
