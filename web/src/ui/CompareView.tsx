/** One prompt, two settings, two answers side by side. */
import { computed, signal, type Signal } from '@preact/signals';
import { useState } from 'preact/hooks';
import { emptyDraft, generate, type Draft } from '../lib/generate';
import { t, type Key } from '../lib/i18n';
import { blank } from '../state/chats';
import { bodyFor } from '../state/run';
import { PARAMS, same, settings, type Settings, type Side } from '../state/params';
import { Icon } from './icons';
import { CopyButton, GrowingText, IconButton, isSubmit } from './kit';
import { MarkdownText } from './MarkdownText';
import { Facts } from './MessageView';
import { SchemaBadge } from './SchemaBadge';
import { TokenLegend, TokenView } from './TokenView';
import { CodeDialog } from './CodeDialog';

interface Run {
  draft: Draft;
  error: string;
  running: boolean;
  schema?: string;
}

const prompt = signal('');
const system = signal('');
const runs: Record<Side, Signal<Run | null>> = { a: signal(null), b: signal(null) };
const running = computed(() => !!(runs.a.value?.running || runs.b.value?.running));
let abort: AbortController | null = null;

const body = (from: Settings) => {
  const plain = { ...from, tools: '', values: { ...from.values } };
  delete plain.values.n;
  return bodyFor({ system: system.value }, [blank('user', null, prompt.value)], plain);
};

async function one(side: Side, signal: AbortSignal): Promise<void> {
  const from = settings[side].value;
  const run = runs[side];
  run.value = { draft: emptyDraft(), error: '', running: true, schema: from.format === 'schema' ? from.schema : undefined };
  let error = '';
  try {
    await generate('v1/chat/completions', body(from), signal, (drafts) => {
      const draft = drafts.get(0);
      if (draft) run.value = { ...run.value!, draft: { ...draft, tokens: [...draft.tokens] } };
    });
  } catch (problem) {
    error = signal.aborted ? '' : (problem as Error).message;
  }
  const draft = signal.aborted ? { ...run.value!.draft, finish: 'stopped' } : run.value!.draft;
  run.value = { ...run.value!, draft, error, running: false };
}

function runBoth(): void {
  if (!prompt.value.trim() || running.value) return;
  abort = new AbortController();
  void one('a', abort.signal);
  void one('b', abort.signal);
}

export function CompareView({ side, onSide }: { side: Side; onSide: (side: Side) => void }) {
  const [code, setCode] = useState(false);
  const equal = same(settings.a.value, settings.b.value);
  return (
    <div class="compare">
      <div class="compare-top">
        <GrowingText value={system.value} onInput={(text) => (system.value = text)} label={t('systemPrompt')} placeholder={t('systemPrompt')} class="quiet-input" />
        <div class="composer">
          <GrowingText
            value={prompt.value}
            onInput={(text) => (prompt.value = text)}
            label={t('comparePrompt')}
            placeholder={t('comparePlaceholder')}
            rows={2}
            focus
            onKeyDown={(event) => {
              if (!isSubmit(event)) return;
              event.preventDefault();
              runBoth();
            }}
          />
          <div class="composer-bar">
            <IconButton icon="code" label={t('showCode')} onClick={() => setCode(true)} />
            <span class="hint">{equal ? t('noDifference') : ''}</span>
            {running.value ? (
              <IconButton icon="stop" class="send" label={t('stop')} onClick={() => abort?.abort()} />
            ) : (
              <button type="button" class="primary" disabled={!prompt.value.trim()} onClick={runBoth}>
                <Icon name="play" /> {t('runBoth')}
              </button>
            )}
          </div>
        </div>
        <Verdict />
      </div>
      <div class="columns">
        {(['a', 'b'] as const).map((one) => (
          <Column key={one} side={one} current={one === side} onSide={onSide} />
        ))}
      </div>
      {code && <CodeDialog path="v1/chat/completions" body={() => body(settings[side].value)} onClose={() => setCode(false)} />}
    </div>
  );
}

function Verdict() {
  const [a, b] = [runs.a.value, runs.b.value];
  if (!a || !b || running.value || a.error || b.error) return null;
  const [one, other] = [a.draft.content, b.draft.content];
  let at = 0;
  while (at < one.length && one[at] === other[at]) at++;
  return <p class="muted verdict" role="status">{one === other ? t('sameAnswers') : t('differAt', { n: at + 1 })}</p>;
}

/** What is set, in short. */
export function summary(from: Settings): string {
  const parts = PARAMS.filter((param) => from.values[param.name] !== undefined).map(
    (param) => `${t(`p_${param.name}` as Key)} ${String(from.values[param.name]).slice(0, 20)}`,
  );
  if (from.format !== 'text') parts.push(t('format'));
  return parts.join(' · ') || t('defaultsOnly');
}

function Column({ side, current, onSide }: { side: Side; current: boolean; onSide: (side: Side) => void }) {
  const run = runs[side].value;
  const [tokens, setTokens] = useState(false);
  const name = t(side === 'a' ? 'settingA' : 'settingB');
  return (
    <section class={`column ${current ? 'current' : ''}`} aria-label={name}>
      <header>
        <button type="button" class="column-name" aria-pressed={current} onClick={() => onSide(side)}>
          <span class={`side-mark ${side}`}>{side.toUpperCase()}</span>
          <span class="column-summary">{summary(settings[side].value)}</span>
        </button>
      </header>
      <div class="column-body" tabIndex={0} aria-busy={run?.running}>
        {!run && <p class="muted">{t('compareEmpty')}</p>}
        {run?.draft.reasoning && <details class="reasoning"><summary>{t('thoughts')}</summary><div class="thoughts">{run.draft.reasoning}</div></details>}
        {run && (tokens && run.draft.tokens.length ? (
          <><TokenView tokens={run.draft.tokens} /><TokenLegend tokens={run.draft.tokens} /></>
        ) : tokens ? <p class="muted">{t('noTokens')}</p> : (
          <MarkdownText text={run.draft.content} done={!run.running} />
        ))}
        {run?.running && !run.draft.stats.tokens && <span class="dots" aria-hidden="true" />}
        {run?.error && <p class="error" role="alert"><Icon name="warn" /> {run.error}</p>}
        {run && !run.running && run.schema && !run.error && <SchemaBadge answer={run.draft.content} schema={run.schema} />}
      </div>
      {run && !run.running && (
        <div class="actions stay">
          <CopyButton text={() => run.draft.content} />
          <IconButton icon="tokens" label={t('tokensView')} pressed={tokens} onClick={() => setTokens(!tokens)} />
          <Facts message={run.draft} />
        </div>
      )}
    </section>
  );
}
