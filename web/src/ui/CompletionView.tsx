/** Plain continuation of a text, without a chat template. */
import { signal } from '@preact/signals';
import { useState } from 'preact/hooks';
import { emptyDraft, generate, type Draft } from '../lib/generate';
import { t } from '../lib/i18n';
import type { TokenInfo } from '../lib/types';
import { sent, settings } from '../state/params';
import { modelName } from '../state/server';
import { CodeDialog } from './CodeDialog';
import { Icon } from './icons';
import { CopyButton, GrowingText, IconButton } from './kit';
import { Facts } from './MessageView';
import { SchemaBadge } from './SchemaBadge';
import { TokenLegend, TokenView } from './TokenView';

const prompt = signal('');
const draft = signal<Draft | null>(null);
const error = signal('');
const running = signal(false);
let abort: AbortController | null = null;

function body(begun = ''): Record<string, unknown> {
  const from = settings.a.value;
  const whole: Record<string, unknown> = { model: modelName.value, prompt: prompt.value + begun, ...sent(from, false) };
  delete whole.n;
  if (from.logprobs) whole.logprobs = from.top;
  return whole;
}

async function run(begun: TokenInfo[] = []): Promise<void> {
  if (running.value || !prompt.value) return;
  const before = begun.map((one) => one.text).join('');
  abort = new AbortController();
  running.value = true;
  error.value = '';
  draft.value = { ...emptyDraft(), content: before, tokens: begun };
  try {
    await generate('v1/completions', body(before), abort.signal, (drafts) => {
      const one = drafts.get(0);
      if (one) draft.value = { ...one, content: before + one.content, tokens: [...begun, ...one.tokens] };
    });
  } catch (problem) {
    if (!abort.signal.aborted) error.value = (problem as Error).message;
    else if (draft.value) draft.value = { ...draft.value, finish: 'stopped' };
  }
  running.value = false;
}

export function CompletionView() {
  const [tokens, setTokens] = useState(true);
  const [code, setCode] = useState(false);
  const now = draft.value;
  const schema = settings.a.value.format === 'schema' ? settings.a.value.schema : '';
  return (
    <div class="completion">
      <label class="completion-prompt">
        <span class="field-name">{t('completionPrompt')}</span>
        <GrowingText
          value={prompt.value}
          onInput={(text) => (prompt.value = text)}
          label={t('completionPrompt')}
          placeholder={t('completionPlaceholder')}
          rows={6}
          focus
          onKeyDown={(event) => {
            if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void run();
          }}
        />
        <span class="help">{t('completionHelp')}</span>
      </label>
      <div class="row">
        {running.value ? (
          <button type="button" onClick={() => abort?.abort()}><Icon name="stop" /> {t('stop')}</button>
        ) : (
          <button type="button" class="primary" disabled={!prompt.value} onClick={() => void run()}><Icon name="play" /> {t('complete')}</button>
        )}
        <IconButton icon="code" label={t('showCode')} onClick={() => setCode(true)} />
        {now && !running.value && (
          <button
            type="button"
            onClick={() => {
              prompt.value += now.content;
              draft.value = null;
            }}
          >
            {t('keepText')}
          </button>
        )}
      </div>
      <section class="continuation" aria-label={t('generated')} aria-busy={running.value}>
        {!now && <p class="muted">{t('completionEmpty')}</p>}
        {now && tokens && now.tokens.length > 0 ? (
          <><TokenView tokens={now.tokens} onPick={running.value ? undefined : (i, token) => void run([...now.tokens.slice(0, i), token])} /><TokenLegend tokens={now.tokens} /></>
        ) : now && <div class="raw" tabIndex={0}>{now.content}</div>}
        {running.value && !now?.stats.tokens && <span class="dots" aria-hidden="true" />}
        {error.value && <p class="error" role="alert"><Icon name="warn" /> {error.value}</p>}
        {now && !running.value && schema && <SchemaBadge answer={now.content} schema={schema} />}
        {now && !running.value && (
          <div class="actions stay">
            <CopyButton text={() => now.content} />
            <IconButton icon="tokens" label={t('tokensView')} pressed={tokens} onClick={() => setTokens(!tokens)} />
            <Facts message={now} />
          </div>
        )}
      </section>
      {code && <CodeDialog path="v1/completions" body={() => body()} onClose={() => setCode(false)} />}
    </div>
  );
}
