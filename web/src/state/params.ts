/** Settings of requests: what there is, within which limits, what is set, and presets of them. */
import { computed, effect, signal, type Signal } from '@preact/signals';
import type { Key } from '../lib/i18n';
import { load, save } from '../lib/store';
import type { Info } from '../lib/types';
import { info } from './server';

export type Value = number | string | boolean | null;
export type Values = Record<string, Value>;
export type Group = 'sampling' | 'lengthAndStops' | 'penalties' | 'reasoningGroup' | 'advanced';

export interface Param {
  name: string;
  group: Group;
  kind: 'slider' | 'integer' | 'text' | 'lines' | 'json' | 'switch' | 'choice';
  min?: (info: Info) => number;
  max?: (info: Info) => number;
  /** End of the slider where the limit is far away. */
  usual?: (info: Info) => number;
  step?: number;
  /** What holds when nothing is set: a number, or a word. */
  fallback: (info: Info) => number | Key | string;
  choices?: string[];
  chatOnly?: boolean;
}

const at = (value: number) => () => value;
const model = (name: 'temperature' | 'top_p' | 'top_k' | 'repetition_penalty', otherwise: number) => (info: Info) => {
  const defaults = info.runtime.generation_defaults;
  return defaults.applied ? (defaults[name] ?? otherwise) : otherwise;
};

export const PARAMS: Param[] = [
  { name: 'temperature', group: 'sampling', kind: 'slider', min: at(0), usual: at(2), step: 0.05, fallback: model('temperature', 1) },
  { name: 'top_p', group: 'sampling', kind: 'slider', min: at(0), max: at(1), step: 0.01, fallback: model('top_p', 1) },
  { name: 'top_k', group: 'sampling', kind: 'slider', min: at(0), max: (i) => i.runtime.vocab_size, usual: at(200), step: 1, fallback: model('top_k', 0) },
  { name: 'typical_p', group: 'sampling', kind: 'slider', min: at(0), max: at(1), step: 0.01, fallback: at(1) },
  { name: 'seed', group: 'sampling', kind: 'integer', min: at(0), max: at(Number.MAX_SAFE_INTEGER), fallback: () => 'random' },
  { name: 'max_tokens', group: 'lengthAndStops', kind: 'slider', min: at(1), max: (i) => i.max_total_tokens - 1, step: 1, fallback: (i) => i.runtime.default_max_new_tokens ?? 'toLimit' },
  { name: 'min_tokens', group: 'lengthAndStops', kind: 'integer', min: at(0), max: (i) => i.max_total_tokens - 1, fallback: at(0) },
  { name: 'n', group: 'lengthAndStops', kind: 'slider', min: at(1), max: (i) => i.max_concurrent_requests, usual: at(8), step: 1, fallback: at(1) },
  { name: 'stop', group: 'lengthAndStops', kind: 'lines', fallback: () => 'off' },
  { name: 'stop_token_ids', group: 'lengthAndStops', kind: 'text', fallback: () => 'off' },
  { name: 'repetition_penalty', group: 'penalties', kind: 'slider', min: at(0.01), usual: at(2), step: 0.01, fallback: model('repetition_penalty', 1) },
  { name: 'frequency_penalty', group: 'penalties', kind: 'slider', min: at(-2), max: at(2), step: 0.05, fallback: at(0) },
  { name: 'presence_penalty', group: 'penalties', kind: 'slider', min: at(-2), max: at(2), step: 0.05, fallback: at(0) },
  { name: 'reasoning_effort', group: 'reasoningGroup', kind: 'choice', choices: ['none', 'low', 'medium', 'high'], fallback: () => 'modelDefault', chatOnly: true },
  { name: 'max_thinking_tokens', group: 'reasoningGroup', kind: 'integer', min: at(0), max: (i) => i.max_total_tokens - 1, fallback: () => 'modelDefault', chatOnly: true },
  { name: 'logit_bias', group: 'advanced', kind: 'json', fallback: () => 'off' },
  { name: 'truncate', group: 'advanced', kind: 'integer', min: at(1), max: (i) => i.max_input_tokens, fallback: () => 'off' },
  { name: 'ignore_eos', group: 'advanced', kind: 'switch', fallback: () => 'off' },
  { name: 'watermark', group: 'advanced', kind: 'switch', fallback: () => 'off' },
];

export interface Settings {
  values: Values;
  logprobs: boolean;
  top: number;
  format: 'text' | 'json' | 'schema' | 'regex';
  schema: string;
  pattern: string;
  tools: string;
  toolChoice: string;
  parallel: boolean;
}

const SCHEMA = `{
  "type": "object",
  "properties": {
    "name": { "type": "string" },
    "age": { "type": "integer", "minimum": 0 }
  },
  "required": ["name", "age"],
  "additionalProperties": false
}`;

export const NONE: Settings = {
  values: {},
  logprobs: false,
  top: 5,
  format: 'text',
  schema: SCHEMA,
  pattern: '(yes|no)',
  tools: '',
  toolChoice: 'auto',
  parallel: true,
};

export type Side = 'a' | 'b';
export const settings: Record<Side, Signal<Settings>> = {
  a: signal<Settings>({ ...NONE, ...load('settings.a', {}) }),
  b: signal<Settings>({ ...NONE, ...load('settings.b', { values: { temperature: 0 } }) }),
};
for (const side of ['a', 'b'] as const) effect(() => save(`settings.${side}`, settings[side].value));

export function change(side: Side, part: Partial<Settings>): void {
  settings[side].value = { ...settings[side].value, ...part };
}

export function set(side: Side, name: string, value: Value): void {
  const values = { ...settings[side].value.values };
  if (value === null || value === '') delete values[name];
  else values[name] = value;
  change(side, { values });
}

/** Parameters as the request has them. */
export function sent(from: Settings, chat: boolean): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const param of PARAMS) {
    const value = from.values[param.name];
    if (value === undefined || value === null || value === false || (param.chatOnly && !chat)) continue;
    body[param.name] = parsed(param, value);
  }
  return { ...body, ...form(from) };
}

function parsed(param: Param, value: Value): unknown {
  if (param.kind === 'lines') return String(value).split('\n').filter(Boolean).map((line) => line.replaceAll('\\n', '\n'));
  if (param.name === 'stop_token_ids') return String(value).split(/[\s,]+/).filter(Boolean).map(Number);
  if (param.kind === 'json') return JSON.parse(String(value));
  return value;
}

function form(from: Settings): Record<string, unknown> {
  if (from.format === 'json') return { response_format: { type: 'json_object' } };
  if (from.format === 'regex') return { response_format: { type: 'regex', value: from.pattern } };
  if (from.format !== 'schema') return {};
  return { response_format: { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema: JSON.parse(from.schema) } } };
}

/** What is wrong with a setting that is JSON; empty: nothing. */
export function jsonProblem(text: string, list = false): string {
  if (!text.trim()) return '';
  try {
    const value = JSON.parse(text);
    return list && !Array.isArray(value) ? 'mustBeList' : '';
  } catch (error) {
    return (error as Error).message;
  }
}

export interface Preset {
  name: string;
  key?: Key;
  values: Values;
}

const BUILT_IN: Preset[] = [
  { name: 'default', key: 'presetDefault', values: {} },
  { name: 'greedy', key: 'presetGreedy', values: { temperature: 0 } },
  { name: 'precise', key: 'presetPrecise', values: { temperature: 0.3, top_p: 0.9 } },
  { name: 'balanced', key: 'presetBalanced', values: { temperature: 0.7, top_p: 0.95, top_k: 50 } },
  { name: 'creative', key: 'presetCreative', values: { temperature: 1.1, top_p: 0.98, presence_penalty: 0.4 } },
];

export const ownPresets = signal<Preset[]>(load('presets', []));
effect(() => save('presets', ownPresets.value));
export const presets = computed(() => [...BUILT_IN, ...ownPresets.value]);

/** The preset that the values are, if they are one. */
export const presetOf = (values: Values): Preset | undefined =>
  presets.value.find((preset) => same(preset.values, values));

export function same(one: unknown, other: unknown): boolean {
  return JSON.stringify(sorted(one)) === JSON.stringify(sorted(other));
}

function sorted(value: unknown): unknown {
  if (!value || typeof value !== 'object' || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** How many alternatives the server gives at most. */
export const mostAlternatives = computed(() => info.value?.runtime.max_top_n_tokens ?? 5);
