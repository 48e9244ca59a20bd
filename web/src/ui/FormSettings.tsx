/** What the answer must look like, and the tools that it may call. */
import { t } from '../lib/i18n';
import { change, settings, type Settings, type Side } from '../state/params';
import { info } from '../state/server';
import { GrowingText } from './kit';
import { problem } from './SettingsPanel';

const EXAMPLE = JSON.stringify(
  [
    {
      type: 'function',
      function: {
        name: 'get_weather',
        description: 'Current weather of a city',
        parameters: {
          type: 'object',
          properties: { city: { type: 'string' }, unit: { type: 'string', enum: ['celsius', 'fahrenheit'] } },
          required: ['city'],
        },
      },
    },
  ],
  null,
  2,
);

export function FormatSettings({ side }: { side: Side }) {
  const now = settings[side].value;
  const wrong = now.format === 'schema' ? problem(now.schema) : '';
  return (
    <div class="group-like">
      <label class="inline-field">
        <span class="field-name">{t('format')}</span>
        <select value={now.format} disabled={!info.value!.runtime.grammars} onChange={(event) => change(side, { format: event.currentTarget.value as Settings['format'] })}>
          <option value="text">{t('formatText')}</option>
          <option value="json">{t('formatJson')}</option>
          <option value="schema">{t('formatSchema')}</option>
          <option value="regex">{t('formatRegex')}</option>
        </select>
      </label>
      {!info.value!.runtime.grammars && <p class="help">{t('grammarsOff')}</p>}
      {now.format === 'schema' && (
        <>
          <GrowingText class="mono" value={now.schema} onInput={(schema) => change(side, { schema })} label={t('schema')} rows={4} invalid={!!wrong} />
          {wrong && <p class="wrong" role="alert">{wrong}</p>}
          <p class="help">{t('schemaHelp')}</p>
        </>
      )}
      {now.format === 'regex' && (
        <input type="text" class="mono" aria-label={t('pattern')} value={now.pattern} onInput={(event) => change(side, { pattern: event.currentTarget.value })} />
      )}
    </div>
  );
}

export function ToolSettings({ side }: { side: Side }) {
  const now = settings[side].value;
  const wrong = problem(now.tools, true);
  const names = wrong || !now.tools.trim() ? [] : (JSON.parse(now.tools) as any[]).map((tool) => tool?.function?.name).filter(Boolean);
  return (
    <details class="group" open={!!now.tools.trim()}>
      <summary>
        {t('tools')}
        {names.length > 0 && <span class="count">{names.length}</span>}
      </summary>
      <p class="help">{t('toolsHelp')}</p>
      <GrowingText class="mono" value={now.tools} onInput={(tools) => change(side, { tools })} label={t('toolDefinitions')} placeholder="[]" rows={3} invalid={!!wrong} />
      {wrong && <p class="wrong" role="alert">{wrong}</p>}
      {!now.tools.trim() ? (
        <button type="button" class="quiet" onClick={() => change(side, { tools: EXAMPLE })}>{t('toolExample')}</button>
      ) : (
        <>
          <label class="inline-field">
            <span>{t('toolChoice')}</span>
            <select value={now.toolChoice} onChange={(event) => change(side, { toolChoice: event.currentTarget.value })}>
              <option value="auto">{t('toolAuto')}</option>
              <option value="none">{t('toolNone')}</option>
              <option value="required">{t('toolRequired')}</option>
              {names.map((name: string) => (
                <option key={name} value={name}>{name}</option>
              ))}
            </select>
          </label>
          <label class="switch-row">
            <span>{t('parallelTools')}</span>
            <input type="checkbox" role="switch" checked={now.parallel} onChange={(event) => change(side, { parallel: event.currentTarget.checked })} />
          </label>
        </>
      )}
    </details>
  );
}
