/** The conversation, what to begin with, and the field to write in. */
import { signal } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import { t, type Key } from '../lib/i18n';
import { open, path } from '../state/chats';
import { bodyFor, busy, live, send, stop } from '../state/run';
import { settings } from '../state/params';
import { info, modelName, shortName } from '../state/server';
import { CodeDialog } from './CodeDialog';
import { blank, newSystem } from '../state/chats';
import { GrowingText, IconButton, isSubmit } from './kit';
import { MessageView } from './MessageView';

const draft = signal('');
const EXAMPLES: [Key, Key][] = [['ex1t', 'ex1'], ['ex2t', 'ex2'], ['ex3t', 'ex3'], ['ex4t', 'ex4']];

export function ChatView() {
  const chat = open.value;
  const messages = chat ? path(chat) : [];
  const scroller = useRef<HTMLDivElement>(null);
  const away = useFollow(scroller, chat?.id ?? '');
  return (
    <div class="chat">
      <div class="scroller" ref={scroller} tabIndex={-1}>
        {chat && messages.length ? (
          <div class="transcript">
            {messages.map((message, i) => (
              <MessageView key={message.id} chat={chat} message={message} live={live.value.get(message.id)} last={i === messages.length - 1} />
            ))}
          </div>
        ) : (
          <Empty />
        )}
      </div>
      {away.value && (
        <IconButton icon="down" class="to-end" label={t('scrollDown')} onClick={() => toEnd(scroller.current!)} />
      )}
      <Composer />
    </div>
  );
}

const toEnd = (element: HTMLElement) => element.scrollTo({ top: element.scrollHeight });

/** Stay at the end while it grows, unless the reader has scrolled away. */
function useFollow(box: { current: HTMLDivElement | null }, key: string) {
  const [away] = useState(() => signal(false));
  useEffect(() => {
    const element = box.current!;
    let follow = true;
    const onScroll = () => {
      const rest = element.scrollHeight - element.scrollTop - element.clientHeight;
      follow = rest < 40;
      away.value = rest > 200;
    };
    const grown = new ResizeObserver(() => follow && toEnd(element));
    const watch = () => {
      grown.disconnect();
      for (const child of element.children) grown.observe(child);
    };
    const changed = new MutationObserver(watch);
    watch();
    changed.observe(element, { childList: true });
    element.addEventListener('scroll', onScroll, { passive: true });
    toEnd(element);
    return () => {
      grown.disconnect();
      changed.disconnect();
      element.removeEventListener('scroll', onScroll);
    };
  }, [key]);
  return away;
}

function Empty() {
  return (
    <div class="empty">
      <h1>{t('hello')}</h1>
      <p>{modelName.value && t('helloSub', { model: shortName(modelName.value) })}</p>
      {info.value && !info.value.runtime.chat_template && <p class="warn-text">{t('noTemplate')}</p>}
      <div class="examples">
        {EXAMPLES.map(([title, text]) => (
          <button
            key={title}
            type="button"
            class="example"
            onClick={() => {
              draft.value = t(text);
              document.getElementById('message')?.focus();
            }}
          >
            <strong>{t(title)}</strong>
            <span>{t(text)}</span>
          </button>
        ))}
      </div>
    </div>
  );
}

function Composer() {
  const [code, setCode] = useState(false);
  const text = draft.value;
  const submit = () => {
    if (!text.trim() || busy.value) return;
    draft.value = '';
    void send(text.trim());
  };
  const from = settings.a.value;
  const body = () => {
    const chat = open.value;
    const history = chat ? path(chat) : [];
    const next = text.trim() || (history.length ? '' : t('ex1'));
    const messages = next ? [...history, blank('user', null, next)] : history;
    return bodyFor(chat ?? { system: newSystem.value }, messages, from);
  };
  return (
    <div class="composer-wrap">
      <div class="composer">
        {/* Images will be attached here, once they are served. */}
        <GrowingText
          id="message"
          value={text}
          onInput={(value) => (draft.value = value)}
          label={t('message')}
          placeholder={t('messagePlaceholder')}
          focus
          onKeyDown={(event) => {
            if (isSubmit(event)) {
              event.preventDefault();
              submit();
            } else if (event.key === 'Escape' && busy.value) stop();
          }}
        />
        <div class="composer-bar">
          <IconButton icon="code" label={t('showCode')} onClick={() => setCode(true)} />
          <Chips />
          <span class="hint">{t('sendHint')}</span>
          {busy.value ? (
            <IconButton icon="stop" class="send" label={t('stop')} onClick={stop} />
          ) : (
            <IconButton icon="send" class="send" label={t('send')} disabled={!text.trim()} onClick={submit} />
          )}
        </div>
      </div>
      {code && <CodeDialog path="v1/chat/completions" body={body} onClose={() => setCode(false)} />}
    </div>
  );
}

/** What is on beside plain sampling. */
function Chips() {
  const from = settings.a.value;
  const chips: string[] = [];
  if (from.logprobs) chips.push(t('tokens'));
  if (from.format === 'json') chips.push(t('formatJson'));
  if (from.format === 'schema') chips.push(t('formatSchema'));
  if (from.format === 'regex') chips.push(t('formatRegex'));
  if (from.tools.trim() && from.toolChoice !== 'none') chips.push(t('tools'));
  return (
    <>
      {chips.map((chip) => (
        <span key={chip} class="chip">
          {chip}
        </span>
      ))}
    </>
  );
}
