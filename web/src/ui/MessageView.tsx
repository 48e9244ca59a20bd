/** One message with all that can be done with it. */
import { useState } from 'preact/hooks';
import type { Signal } from '@preact/signals';
import { number, seconds } from '../lib/format';
import { speed } from '../lib/generate';
import { t } from '../lib/i18n';
import type { Chat, Message } from '../lib/types';
import { show, versions } from '../state/chats';
import { branch, busy, edited, giveResults, goOn, regenerate, replaced } from '../state/run';
import { Icon } from './icons';
import { CopyButton, GrowingText, IconButton } from './kit';
import { MarkdownText } from './MarkdownText';
import { SchemaBadge } from './SchemaBadge';
import { TokenLegend, TokenView } from './TokenView';

interface Props {
  chat: Chat;
  message: Message;
  live?: Signal<Message>;
  last: boolean;
}

export function MessageView({ chat, message: kept, live, last }: Props) {
  const message = live?.value ?? kept;
  const [editing, setEditing] = useState(false);
  const [tokens, setTokens] = useState(false);
  const name = t(message.role === 'user' ? 'you' : message.role === 'tool' ? 'tool' : 'assistant');
  const done = !live;
  if (editing) return <Editor chat={chat} message={message} onClose={() => setEditing(false)} />;
  return (
    <article class={`message ${message.role}`} aria-label={name} aria-busy={!done}>
      {message.role === 'tool' && <div class="role">{name}</div>}
      {message.reasoning && <Reasoning text={message.reasoning} open={!done && !message.content} />}
      <Body chat={chat} message={message} done={done} tokens={tokens} />
      {message.calls?.map((call) => <CallCard key={call.id} name={call.name} args={call.args} />)}
      {message.error && (
        <p class="error" role="alert">
          <Icon name="warn" /> {message.error}
        </p>
      )}
      {done && last && !!message.calls?.length && <Results chat={chat} message={message} />}
      {done && (
        <Actions
          chat={chat}
          message={message}
          last={last}
          tokens={tokens}
          onEdit={() => setEditing(true)}
          onTokens={() => setTokens(!tokens)}
        />
      )}
    </article>
  );
}

function Body({ chat, message, done, tokens }: { chat: Chat; message: Message; done: boolean; tokens: boolean }) {
  if (message.role === 'user') return <div class="bubble">{message.content}</div>;
  if (message.role === 'tool') return <pre class="plain">{message.content}</pre>;
  if (tokens) {
    if (!message.tokens?.length) return <p class="muted">{t('noTokens')}</p>;
    const pick = done ? (i: number, token: any) => void branch(chat, message, i, token) : undefined;
    return (
      <>
        <TokenView tokens={message.tokens} onPick={message.reasoning || message.calls ? undefined : pick} />
        <TokenLegend tokens={message.tokens} />
      </>
    );
  }
  const nothing = !message.content && !message.reasoning && !message.calls;
  if (!done && nothing) return <p class="waiting" role="status"><span class="dots" aria-hidden="true" /><span class="sr">{t('waiting')}</span></p>;
  return (
    <>
      <MarkdownText text={message.content} done={done} />
      {done && message.schema && !message.error && <SchemaBadge answer={message.content} schema={message.schema} />}
    </>
  );
}

function Reasoning({ text, open }: { text: string; open: boolean }) {
  const [asked, setAsked] = useState<boolean | null>(null);
  return (
    <details class="reasoning" open={asked ?? open}>
      <summary
        onClick={(event) => {
          event.preventDefault();
          setAsked(!(asked ?? open));
        }}
      >
        {t(open ? 'thinking' : 'thoughts')}
      </summary>
      <div class="thoughts">{text}</div>
    </details>
  );
}

function CallCard({ name, args }: { name: string; args: string }) {
  let shown = args;
  try {
    shown = JSON.stringify(JSON.parse(args), null, 2);
  } catch {
    // Still growing: as it came.
  }
  return (
    <div class="call">
      <div class="call-name">
        <Icon name="tool" /> <code>{name}</code>
      </div>
      <pre class="plain" tabIndex={0} aria-label={t('callOf', { name })}>{shown}</pre>
    </div>
  );
}

function Results({ chat, message }: { chat: Chat; message: Message }) {
  const calls = message.calls ?? [];
  const [results, setResults] = useState<string[]>(calls.map(() => ''));
  return (
    <div class="results">
      {calls.map((call, i) => (
        <label key={call.id}>
          <span>
            {t('toolResult')} · <code>{call.name}</code>
          </span>
          <GrowingText
            value={results[i]!}
            label={`${t('toolResult')} ${call.name}`}
            placeholder={t('toolResultPlaceholder')}
            rows={2}
            class="mono"
            onInput={(text) => setResults(results.map((one, j) => (j === i ? text : one)))}
          />
        </label>
      ))}
      <button type="button" class="primary" disabled={busy.value} onClick={() => void giveResults(chat, message, results)}>
        {t('sendResults')}
      </button>
    </div>
  );
}

function Editor({ chat, message, onClose }: { chat: Chat; message: Message; onClose: () => void }) {
  const [text, setText] = useState(message.content);
  const submit = () => {
    onClose();
    void edited(chat, message, text);
  };
  return (
    <article class={`message ${message.role} editing`}>
      <GrowingText
        value={text}
        onInput={setText}
        label={t('edit')}
        focus
        onKeyDown={(event) => {
          if (event.key === 'Escape') onClose();
          if (event.key === 'Enter' && (event.metaKey || event.ctrlKey)) submit();
        }}
      />
      <div class="edit-actions">
        <button type="button" onClick={onClose}>
          {t('cancel')}
        </button>
        <button
          type="button"
          onClick={() => {
            replaced(chat, message, text);
            onClose();
          }}
        >
          {t('saveOnly')}
        </button>
        <button type="button" class="primary" disabled={busy.value} onClick={submit}>
          {t(message.role === 'assistant' ? 'save' : 'saveAndSend')}
        </button>
      </div>
    </article>
  );
}

interface ActionProps {
  chat: Chat;
  message: Message;
  last: boolean;
  tokens: boolean;
  onEdit: () => void;
  onTokens: () => void;
}

function Actions({ chat, message, last, tokens, onEdit, onTokens }: ActionProps) {
  const answer = message.role === 'assistant';
  const resumable = last && answer && ['length', 'stopped'].includes(message.finish ?? '') && !message.calls;
  return (
    <div class={`actions ${last ? 'stay' : ''}`}>
      <Versions chat={chat} message={message} />
      <CopyButton text={() => message.content} />
      <IconButton icon="edit" label={t('edit')} disabled={busy.value} onClick={onEdit} />
      {answer && <IconButton icon="redo" label={t('regenerate')} disabled={busy.value} onClick={() => void regenerate(chat, message)} />}
      {resumable && <IconButton icon="next" label={t('continue')} disabled={busy.value} onClick={() => void goOn(chat, message)} />}
      {answer && <IconButton icon="tokens" label={t('tokensView')} pressed={tokens} onClick={onTokens} />}
      {answer && <Facts message={message} />}
    </div>
  );
}

function Versions({ chat, message }: { chat: Chat; message: Message }) {
  const all = versions(chat, message);
  if (all.length < 2) return null;
  const at = all.findIndex((one) => one.id === message.id);
  const label = t('version', { n: at + 1, total: all.length });
  return (
    <span class="versions" role="group" aria-label={label}>
      <IconButton icon="left" label={t('previousVersion')} disabled={at <= 0 || busy.value} onClick={() => show(chat, all[at - 1]!)} />
      <span aria-hidden="true">
        {at + 1}/{all.length}
      </span>
      <IconButton icon="right" label={t('nextVersion')} disabled={at >= all.length - 1 || busy.value} onClick={() => show(chat, all[at + 1]!)} />
    </span>
  );
}

export function Facts({ message }: { message: Pick<Message, 'stats' | 'finish' | 'ignored'> }) {
  const { stats, finish, ignored } = message;
  if (!stats?.tokens) return null;
  const rate = speed(stats);
  const prompt = stats.prompt ? t('promptTokens', { n: number(stats.prompt), cached: number(stats.cached ?? 0) }) : '';
  return (
    <span class="facts" title={prompt}>
      <span>{t('tokenCount', { n: number(stats.tokens) })}</span>
      {rate > 0 && <span>{t('perSecond', { n: number(rate, rate < 100 ? 1 : 0) })}</span>}
      <span class="optional">{t('firstToken', { time: seconds(stats.ttft) })}</span>
      {finish === 'length' && <span class="warn-text">{t('cutAtLimit')}</span>}
      {ignored && <span class="warn-text">{t('ignoredFields', { names: ignored })}</span>}
      {finish === 'stopped' && <span class="warn-text">{t('stopped')}</span>}
    </span>
  );
}
