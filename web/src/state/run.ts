/** Asking the model within a conversation: send, stop, regenerate, edit, continue from a token, answer a call. */
import { computed, signal, type Signal } from '@preact/signals';
import { t } from '../lib/i18n';
import { generate, type Draft } from '../lib/generate';
import type { Chat, Message, TokenInfo } from '../lib/types';
import { blank, chats, ensureOpen, leaving, path, update, wire, withMessages } from './chats';
import { info, modelName } from './server';
import { sent, settings, type Settings } from './params';

/** Answers that are being written, by message. */
export const live = signal<Map<string, Signal<Message>>>(new Map());
export const busy = computed(() => live.value.size > 0);
/** What a screen reader is told. */
export const announced = signal('');
let abort: AbortController | null = null;

export function stop(): void {
  abort?.abort();
}

/** The request that would be sent after these messages. */
export function bodyFor(chat: Pick<Chat, 'system'>, messages: Message[], from: Settings): Record<string, unknown> {
  const body: Record<string, unknown> = { model: modelName.value, messages: wire(chat as Chat, messages) };
  Object.assign(body, sent(from, true));
  if (from.logprobs) Object.assign(body, { logprobs: true, top_logprobs: from.top });
  if (from.tools.trim() && from.toolChoice !== 'none') {
    const choices = ['auto', 'required'];
    body.tools = JSON.parse(from.tools);
    body.tool_choice = choices.includes(from.toolChoice) ? from.toolChoice : { type: 'function', function: { name: from.toolChoice } };
    if (!from.parallel) body.parallel_tool_calls = false;
  }
  return body;
}

export async function send(text: string): Promise<void> {
  const chat = ensureOpen();
  const message = blank('user', chat.leaf, text);
  const grown = withMessages(chat, [message], message.id);
  update(grown);
  await answer(grown, message.id);
}

/** Another answer to what came before this one. */
export const regenerate = (chat: Chat, message: Message): Promise<void> => answer(chat, message.parent);

/** A new version of a message; of a user's, with an answer. */
export async function edited(chat: Chat, message: Message, text: string): Promise<void> {
  const version = { ...blank(message.role, message.parent, text), callId: message.callId };
  const grown = withMessages(chat, [version], version.id);
  update(grown);
  if (message.role !== 'assistant') await answer(grown, version.id);
}

export function replaced(chat: Chat, message: Message, text: string): void {
  update(withMessages(chat, [{ ...message, content: text, tokens: undefined }]));
}

/** Go on with an answer that was cut or stopped. */
export const goOn = (chat: Chat, message: Message): Promise<void> =>
  answer(chat, message.parent, { content: message.content, reasoning: message.reasoning, tokens: message.tokens });

/** Take another token at a place, and go on from there. */
export function branch(chat: Chat, message: Message, position: number, token: TokenInfo): Promise<void> {
  const tokens = [...(message.tokens ?? []).slice(0, position), token];
  const ends = info.value?.runtime.end_tokens.some((one) => one.text === token.text);
  const text = (ends ? tokens.slice(0, -1) : tokens).map((one) => one.text).join('');
  if (ends) {
    const version: Message = { ...blank('assistant', message.parent, text), tokens, finish: 'stop' };
    update(withMessages(chat, [version], version.id));
    return Promise.resolve();
  }
  return answer(chat, message.parent, { content: text, tokens });
}

/** Results of all calls of an answer, then the next answer. */
export async function giveResults(chat: Chat, message: Message, results: string[]): Promise<void> {
  let parent = message.id;
  const added = (message.calls ?? []).map((call, i) => {
    const result = { ...blank('tool', parent, results[i] ?? ''), callId: call.id, created: Date.now() + i };
    parent = result.id;
    return result;
  });
  const grown = withMessages(chat, added, parent);
  update(grown);
  await answer(grown, parent);
}

/** What has come of an answer is kept when the page is left. */
leaving.keep = () => {
  const written = [...live.value.values()].map((one) => ({ ...one.value, finish: 'stopped' }));
  const chat = chats.value.find((one) => written.some((message) => message.id in one.messages));
  if (chat) update(withMessages(chat, written));
};

interface Begun {
  content: string;
  reasoning?: string;
  tokens?: TokenInfo[];
}

async function answer(chat: Chat, after: string | null, begun?: Begun): Promise<void> {
  if (busy.value) return;
  const from = settings.a.value;
  const history = path(chat, after);
  const drafts: Message[] = [];
  const start = (index: number): Signal<Message> => {
    const message: Message = { ...blank('assistant', after), created: Date.now() + index, ...begun };
    if (from.format === 'schema') message.schema = from.schema;
    drafts[index] = message;
    const shown = signal(message);
    live.value = new Map(live.value).set(message.id, shown);
    return shown;
  };
  const first = start(0);
  update(withMessages(chat, [first.value], first.value.id));
  const shown = [first];
  abort = new AbortController();
  announced.value = t('generating');
  let error = '';
  try {
    const before = begun ? [...history, { ...blank('assistant', after, begun.content), reasoning: begun.reasoning }] : history;
    const body = bodyFor(chat, before, from);
    if (begun) Object.assign(body, { continue_final_message: true, add_generation_prompt: false, n: undefined });
    await generate('v1/chat/completions', body, abort.signal, (found) => {
      for (const [index, draft] of found) {
        const one = (shown[index] ??= start(index));
        one.value = merged(drafts[index]!, draft, begun);
      }
    });
  } catch (problem) {
    error = abort.signal.aborted ? '' : (problem as Error).message;
  }
  const stopped = abort.signal.aborted;
  abort = null;
  finish(chat.id, shown, error, stopped);
}

function merged(message: Message, draft: Draft, begun?: Begun): Message {
  return {
    ...message,
    content: (begun?.content ?? '') + draft.content,
    reasoning: (begun?.reasoning ?? '') + draft.reasoning || undefined,
    calls: draft.calls.length ? draft.calls.map((call) => ({ ...call })) : undefined,
    tokens: draft.tokens.length ? [...(begun?.tokens ?? []), ...draft.tokens] : undefined,
    finish: draft.finish || undefined,
    ignored: draft.ignored,
    stats: { ...draft.stats },
  };
}

function finish(chatId: string, shown: Signal<Message>[], error: string, stopped: boolean): void {
  const done = shown.map((one) => ({
    ...one.value,
    error: error || undefined,
    finish: one.value.finish ?? (stopped ? 'stopped' : undefined),
  }));
  const chat = chats.value.find((one) => one.id === chatId);
  if (chat) update(withMessages(chat, done, chat.leaf ?? done[0]!.id));
  live.value = new Map();
  announced.value = error ? `${t('answerFailed')} ${error}` : t(stopped ? 'stopped' : 'answerDone');
}
