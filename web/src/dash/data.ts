/** The numbers of the live page, asked for once a second while anybody looks. */
import { computed, signal } from '@preact/signals';
import { ApiError, apiKey, getJson } from '../lib/api';

export interface Now {
  time: number;
  uptime_s: number;
  healthy: boolean;
  last_step_age_s: number;
  running: number;
  waiting: number;
  permits_taken: number;
  permits: number;
  in_line: number;
  running_tokens: number;
  free_blocks: number;
  num_blocks: number;
  batch: number;
}

export type SeriesName =
  | 'decode_tokens' | 'prefill_tokens' | 'query_tokens' | 'hit_tokens' | 'preemptions' | 'running' | 'waiting'
  | 'free_blocks' | 'busy_s' | 'slowest_step_s';

export interface Reason {
  kind: string;
  seconds: number;
  by: number[];
  others: number;
}

export interface RequestTimes {
  number: number;
  route: string;
  arrived_at: number;
  outcome: string;
  yours: boolean;
  permitted_s?: number;
  validated_s?: number;
  scheduled_s?: number;
  first_token_s?: number;
  ended_s?: number;
  prompt_tokens?: number;
  cached_tokens?: number;
  generated_tokens?: number;
  samples?: number;
  streamed?: boolean;
  finish?: string;
  message?: string;
  reasons?: Reason[];
}

export interface Snapshot {
  now: Now;
  seconds: Record<SeriesName, number[]>;
  /** When it ended, seconds to its first token and between tokens. */
  latencies: [number, number, number | null][];
  open: RequestTimes[];
  requests: RequestTimes[];
  chosen: RequestTimes | null;
  errors: RequestTimes[];
}

export const SHOWN_SECONDS = 300;
const EVERY_MS = 1000;

export const shot = signal<Snapshot | null>(null);
export const problem = signal('');
export const paused = signal(false);
export const chosen = signal<number | null>(null);

export function watch(): () => void {
  let timer = 0;
  let stopped = false;
  let refusedKey: string | null = null;
  const ask = async () => {
    // With a key that was refused there is no need to ask again.
    if (!paused.value && !document.hidden && refusedKey !== apiKey.value) {
      try {
        shot.value = await getJson<Snapshot>(`dashboard/data?seconds=${SHOWN_SECONDS}&request=${chosen.value ?? 0}`);
        problem.value = '';
        refusedKey = null;
      } catch (error) {
        if (error instanceof ApiError && error.status === 401) refusedKey = apiKey.value;
        problem.value = error instanceof ApiError ? error.message : 'unreachable';
      }
    }
    if (!stopped) timer = window.setTimeout(ask, EVERY_MS);
  };
  void ask();
  // What is chosen is told at once.
  const unchoose = chosen.subscribe(() => {
    if (shot.value && !paused.value) {
      clearTimeout(timer);
      void ask();
    }
  });
  return () => {
    stopped = true;
    unchoose();
    clearTimeout(timer);
  };
}

/** A request by its number, among all that are known. */
export const byNumber = computed(() => {
  const all = shot.value ? [...shot.value.errors, ...shot.value.requests, ...shot.value.open, ...(shot.value.chosen ? [shot.value.chosen] : [])] : [];
  return new Map(all.map((one) => [one.number, one]));
});

/** Mean of the last seconds that are over. */
export function recent(values: number[], seconds = 5): number {
  const over = values.slice(-seconds - 1, -1);
  return over.reduce((sum, value) => sum + value, 0) / Math.max(over.length, 1);
}

export const sum = (values: number[]): number => values.reduce((all, value) => all + value, 0);

export interface Point {
  /** Seconds ago. */
  ago: number;
  value: number;
}

/** Times to the first token, and between tokens, of requests that ended within the shown minutes. */
export function latencies(from: Snapshot): { ttft: Point[]; itl: Point[] } {
  const ttft: Point[] = [];
  const itl: Point[] = [];
  for (const [ended, first, between] of from.latencies) {
    const ago = from.now.time - ended;
    ttft.push({ ago, value: first });
    if (between !== null) itl.push({ ago, value: between });
  }
  return { ttft, itl };
}

export function quantile(points: Point[], share: number): number | null {
  if (!points.length) return null;
  const sorted = points.map((point) => point.value).sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}
