/** Everything about how the model is asked. */
import { useState } from 'preact/hooks';
import { t, type Key } from '../lib/i18n';
import { newSystem, open, setSystem } from '../state/chats';
import { PARAMS, change, jsonProblem, mostAlternatives, ownPresets, presetOf, presets, settings, type Group, type Side } from '../state/params';
import { info } from '../state/server';
import { FormatSettings, ToolSettings } from './FormSettings';
import { Dialog, GrowingText, IconButton } from './kit';
import { ParamRow } from './ParamRow';

const GROUPS: Group[] = ['sampling', 'lengthAndStops', 'penalties', 'reasoningGroup', 'advanced'];

export function SettingsPanel({ side, view }: { side: Side; view: 'chat' | 'compare' | 'complete' }) {
  const chat = view !== 'complete';
  if (!info.value) return null;
  return (
    <div class="settings">
      <PresetRow side={side} />
      {view === 'chat' && (
        <label class="field">
          <span class="field-name">{t('systemPrompt')}</span>
          <GrowingText
            value={open.value?.system ?? newSystem.value}
            onInput={setSystem}
            label={t('systemPrompt')}
            placeholder={t('systemPlaceholder')}
            rows={3}
          />
        </label>
      )}
      {GROUPS.map((group) => (
        <ParamGroup key={group} group={group} side={side} chat={chat} open={group === 'sampling' || group === 'lengthAndStops'} />
      ))}
      <TokenSettings side={side} />
      {<FormatSettings side={side} />}
      {view === 'chat' && <ToolSettings side={side} />}
    </div>
  );
}

function ParamGroup({ group, side, chat, open }: { group: Group; side: Side; chat: boolean; open: boolean }) {
  const rows = PARAMS.filter((param) => param.group === group && (chat || !param.chatOnly));
  if (!rows.length) return null;
  const used = rows.filter((param) => settings[side].value.values[param.name] !== undefined).length;
  return (
    <details class="group" open={open || used > 0}>
      <summary>
        {t(group)}
        {used > 0 && <span class="count">{used}</span>}
      </summary>
      {rows.map((param) => (
        <ParamRow key={param.name} param={param} side={side} />
      ))}
    </details>
  );
}

function TokenSettings({ side }: { side: Side }) {
  const now = settings[side].value;
  return (
    <div class="group-like">
      <label class="switch-row">
        <span>
          <span class="field-name">{t('tokens')}</span>
          <span class="help">{t('tokensHelp')}</span>
        </span>
        <input type="checkbox" role="switch" checked={now.logprobs} onChange={(event) => change(side, { logprobs: event.currentTarget.checked })} />
      </label>
      {now.logprobs && (
        <label class="inline-field">
          <span>{t('p_top_logprobs')}</span>
          <input
            type="number"
            min={0}
            max={mostAlternatives.value}
            value={now.top}
            onInput={(event) => {
              const value = Math.round(Number(event.currentTarget.value));
              change(side, { top: Math.max(0, Math.min(mostAlternatives.value, value || 0)) });
            }}
          />
        </label>
      )}
    </div>
  );
}

function PresetRow({ side }: { side: Side }) {
  const now = settings[side].value;
  const current = presetOf(now.values);
  const [asking, setAsking] = useState(false);
  const [name, setName] = useState('');
  const own = current && !current.key;
  const store = () => {
    const clean = name.trim();
    if (clean) ownPresets.value = [...ownPresets.value.filter((one) => one.name !== clean), { name: clean, values: now.values }];
    setAsking(false);
  };
  return (
    <div class="preset-row">
      <select
        aria-label={t('presets')}
        value={current?.name ?? ''}
        onChange={(event) => {
          const chosen = presets.value.find((one) => one.name === event.currentTarget.value);
          if (chosen) change(side, { values: chosen.values });
        }}
      >
        {!current && <option value="">—</option>}
        {presets.value.map((preset) => (
          <option key={preset.name} value={preset.name}>
            {preset.key ? t(preset.key) : preset.name}
          </option>
        ))}
      </select>
      {own ? (
        <IconButton icon="trash" label={t('deletePreset')} onClick={() => (ownPresets.value = ownPresets.value.filter((one) => one !== current))} />
      ) : (
        <IconButton icon="plus" label={t('savePreset')} disabled={!!current} onClick={() => setAsking(true)} />
      )}
      <IconButton icon="reset" label={t('resetAll')} disabled={!Object.keys(now.values).length} onClick={() => change(side, { values: {} })} />
      {asking && (
        <Dialog title={t('savePreset')} onClose={() => setAsking(false)}>
          <input class="wide-input" aria-label={t('presetName')} placeholder={t('presetName')} onInput={(event) => setName(event.currentTarget.value)} onKeyDown={(event) => event.key === 'Enter' && store()} />
          <div class="dialog-actions">
            <button type="button" onClick={() => setAsking(false)}>{t('cancel')}</button>
            <button type="button" class="primary" onClick={store}>{t('save')}</button>
          </div>
        </Dialog>
      )}
    </div>
  );
}

export function problem(text: string, list = false): string {
  const why = jsonProblem(text, list);
  return why && t('badJson', { why: why === 'mustBeList' ? t('mustBeList' as Key) : why });
}
