/** One parameter: its name, what it is, its limits, and a control that fits it. */
import { useId, useState } from 'preact/hooks';
import { number } from '../lib/format';
import { t, type Key } from '../lib/i18n';
import type { Info } from '../lib/types';
import { jsonProblem, set, settings, type Param, type Side } from '../state/params';
import { info } from '../state/server';
import { Icon } from './icons';

const WORDS = ['random', 'off', 'toLimit', 'modelDefault'];

export function ParamRow({ param, side }: { param: Param; side: Side }) {
  const told = info.value!;
  const key = useId();
  const [help, setHelp] = useState(false);
  const name = t(`p_${param.name}` as Key);
  const value = settings[side].value.values[param.name];
  const given = value !== undefined;
  return (
    <div class={`param ${given ? 'given' : ''}`}>
      <div class="param-head">
        {param.kind === 'switch' ? <span class="field-name" id={`${key}l`}>{name}</span> : <label class="field-name" for={key}>{name}</label>}
        <button type="button" class="help-button" aria-expanded={help} aria-controls={`${key}h`} aria-label={t('explain', { name })} onClick={() => setHelp(!help)}>
          <Icon name="info" />
        </button>
        <span class="grow" />
        {given && (
          <button type="button" class="reset" aria-label={t('reset', { name })} title={t('reset', { name })} onClick={() => set(side, param.name, null)}>
            <Icon name="close" />
          </button>
        )}
        <Control param={param} side={side} id={key} told={told} />
      </div>
      <Below param={param} side={side} id={key} told={told} />
      <p class="help" id={`${key}h`} hidden={!help}>
        {t(`h_${param.name}` as Key, { total: number(told.max_total_tokens), most: told.max_stop_sequences })} {limits(param, told)}
      </p>
    </div>
  );
}

/** The limits in words, as the server has them. */
function limits(param: Param, told: Info): string {
  const min = param.min?.(told);
  const max = param.max?.(told);
  if (min === undefined) return '';
  if (max === undefined || max === Number.MAX_SAFE_INTEGER) return `≥ ${number(min, min % 1 ? 2 : 0)}`;
  return t('range', { min: number(min), max: number(max) });
}

interface Props {
  param: Param;
  side: Side;
  id: string;
  told: Info;
}

function placeholder(param: Param, told: Info): string {
  const value = param.fallback(told);
  return WORDS.includes(String(value)) ? t(value as Key) : String(value);
}

/** The part beside the name. */
function Control({ param, side, id, told }: Props) {
  const value = settings[side].value.values[param.name];
  if (param.kind === 'switch') {
    return <input type="checkbox" role="switch" aria-labelledby={`${id}l`} checked={value === true} onChange={(event) => set(side, param.name, event.currentTarget.checked || null)} />;
  }
  if (param.kind === 'choice') {
    return (
      <select id={id} class="narrow" value={String(value ?? '')} onChange={(event) => set(side, param.name, event.currentTarget.value || null)}>
        <option value="">{placeholder(param, told)}</option>
        {param.choices!.map((choice) => (
          <option key={choice} value={choice}>{choice}</option>
        ))}
      </select>
    );
  }
  if (param.kind === 'slider' || param.kind === 'integer') return <NumberBox param={param} side={side} id={id} told={told} />;
  return null;
}

function NumberBox({ param, side, id, told }: Props) {
  const value = settings[side].value.values[param.name];
  const min = param.min?.(told);
  const max = param.max?.(told);
  const whole = param.kind === 'integer' || param.step === 1;
  return (
    <input
      id={id}
      class="number"
      type="number"
      inputMode={whole ? 'numeric' : 'decimal'}
      min={min}
      max={max}
      step={whole ? 1 : 'any'}
      value={value === undefined ? '' : String(value)}
      placeholder={placeholder(param, told)}
      onChange={(event) => {
        const text = event.currentTarget.value;
        if (text === '') return set(side, param.name, null);
        let next = Number(text);
        if (whole) next = Math.round(next);
        next = Math.max(min ?? -Infinity, Math.min(max ?? Infinity, next));
        event.currentTarget.value = String(next);
        set(side, param.name, next);
      }}
    />
  );
}

/** The part below the name. */
function Below({ param, side, id, told }: Props) {
  const value = settings[side].value.values[param.name];
  const name = t(`p_${param.name}` as Key);
  if (param.kind === 'slider') {
    const fallback = param.fallback(told);
    const end = param.usual?.(told) ?? param.max?.(told) ?? 1;
    const at = value ?? (typeof fallback === 'number' ? fallback : end);
    return (
      <input
        type="range"
        aria-label={name}
        tabIndex={0}
        min={param.min?.(told)}
        max={end}
        step={param.step}
        value={Number(at)}
        onInput={(event) => set(side, param.name, Number(event.currentTarget.value))}
      />
    );
  }
  if (param.kind === 'lines' || param.kind === 'json') {
    const wrong = param.kind === 'json' ? jsonProblem(String(value ?? '')) : '';
    return (
      <>
        <textarea
          id={id}
          class="mono"
          rows={2}
          value={String(value ?? '')}
          aria-invalid={!!wrong || undefined}
          placeholder={param.kind === 'json' ? '{ "50256": -100 }' : placeholder(param, told)}
          onInput={(event) => set(side, param.name, event.currentTarget.value)}
        />
        {wrong && <p class="wrong" role="alert">{t('badJson', { why: wrong })}</p>}
      </>
    );
  }
  if (param.kind === 'text') {
    return <input id={id} type="text" class="mono" value={String(value ?? '')} placeholder={placeholder(param, told)} onInput={(event) => set(side, param.name, event.currentTarget.value)} />;
  }
  return null;
}
