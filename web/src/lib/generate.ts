/** An answer while it comes: chunks of either OpenAI route become drafts, told of once a frame. */
import { stream } from './api';
import type { Alternative, Stats, TokenInfo, ToolCall } from './types';

export interface Draft {
  content: string;
  reasoning: string;
  calls: ToolCall[];
  tokens: TokenInfo[];
  finish: string;
  /** Fields of the request that have no effect. */
  ignored?: string;
  stats: Stats;
}

export const emptyDraft = (): Draft => ({
  content: '',
  reasoning: '',
  calls: [],
  tokens: [],
  finish: '',
  stats: { ttft: 0, seconds: 0, tokens: 0 },
});

/** All samples by their index. `onFrame` is called at most once a frame, and at the end. */
export async function generate(
  path: string,
  body: Record<string, unknown>,
  abort: AbortSignal,
  onFrame: (drafts: Map<number, Draft>) => void,
): Promise<Map<number, Draft>> {
  const drafts = new Map<number, Draft>();
  const started = performance.now();
  let frame = 0;
  let ignored = '';
  const tell = () => {
    frame = 0;
    onFrame(drafts);
  };
  const later = (work: () => void): number =>
    document.hidden ? window.setTimeout(work, 250) : requestAnimationFrame(work);
  const whole = { ...body, stream: true, stream_options: { include_usage: true } };
  try {
    for await (const events of stream(path, whole, abort, (names) => (ignored = names))) {
      for (const event of events) take(event, drafts, started);
      if (ignored) for (const draft of drafts.values()) draft.ignored = ignored;
      if (!frame) frame = later(tell);
    }
  } finally {
    cancelAnimationFrame(frame);
    clearTimeout(frame);
    onFrame(drafts);
  }
  return drafts;
}

function take(event: any, drafts: Map<number, Draft>, started: number): void {
  const elapsed = (performance.now() - started) / 1000;
  for (const choice of event.choices ?? []) {
    let draft = drafts.get(choice.index);
    if (!draft) drafts.set(choice.index, (draft = emptyDraft()));
    draft.stats.ttft ||= elapsed;
    draft.stats.seconds = elapsed;
    draft.stats.tokens++;
    if (choice.finish_reason) draft.finish = choice.finish_reason;
    if (choice.delta) takeDelta(choice.delta, draft);
    else draft.content += choice.text ?? '';
    takeTokens(choice.logprobs, draft);
  }
  if (event.usage) takeUsage(event.usage, drafts);
}

function takeDelta(delta: any, draft: Draft): void {
  draft.content += delta.content ?? '';
  draft.reasoning += delta.reasoning_content ?? '';
  for (const part of delta.tool_calls ?? []) {
    const call = (draft.calls[part.index] ??= { id: '', name: '', args: '' });
    if (part.id) call.id = part.id;
    if (part.function?.name) call.name = part.function.name;
    call.args += part.function?.arguments ?? '';
  }
}

/** Chat has a list of objects, completions have parallel lists. */
function takeTokens(logprobs: any, draft: Draft): void {
  if (!logprobs) return;
  for (const one of logprobs.content ?? []) {
    draft.tokens.push({ ...alternative(one), top: (one.top_logprobs ?? []).map(alternative) });
  }
  (logprobs.tokens ?? []).forEach((text: string, i: number) => {
    const top = Object.entries((logprobs.top_logprobs ?? [])[i] ?? {}).map(([text, logprob]) => ({ text, logprob: logprob as number }));
    draft.tokens.push({ text, logprob: logprobs.token_logprobs[i], top });
  });
}

function alternative({ token, logprob, bytes }: any): Alternative {
  if (token && !token.includes('\uFFFD')) return { text: token, logprob };
  const hex = (bytes ?? []).map((byte: number) => byte.toString(16).toUpperCase().padStart(2, '0'));
  return { text: token, logprob, shown: hex.length ? `‹${hex.join(' ')}›` : undefined };
}

function takeUsage(usage: any, drafts: Map<number, Draft>): void {
  for (const draft of drafts.values()) {
    draft.stats.prompt = usage.prompt_tokens;
    draft.stats.cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    if (drafts.size === 1) draft.stats.tokens = usage.completion_tokens;
  }
}

/** Tokens a second after the first; 0 where all came together. */
export const speed = (stats: Stats): number =>
  stats.tokens > 1 && stats.seconds - stats.ttft > 0.02 ? (stats.tokens - 1) / (stats.seconds - stats.ttft) : 0;
