/** What crosses modules: conversations as they are kept, tokens as they are shown, parameters as they are sent. */

export interface Alternative {
  text: string;
  /** How to show a token that is part of a character: its bytes. */
  shown?: string;
  logprob: number;
}

export interface TokenInfo extends Alternative {
  top: Alternative[];
}

export interface ToolCall {
  id: string;
  name: string;
  args: string;
}

export interface Stats {
  ttft: number;
  seconds: number;
  tokens: number;
  prompt?: number;
  cached?: number;
}

export type Role = 'user' | 'assistant' | 'tool';

export interface Message {
  id: string;
  parent: string | null;
  role: Role;
  content: string;
  reasoning?: string;
  calls?: ToolCall[];
  callId?: string;
  tokens?: TokenInfo[];
  finish?: string;
  error?: string;
  ignored?: string;
  stats?: Stats;
  /** The schema that the answer was asked to follow. */
  schema?: string;
  created: number;
}

/** A tree of messages; the path from `leaf` to the root is what is shown. */
export interface Chat {
  id: string;
  title: string;
  system: string;
  created: number;
  updated: number;
  messages: Record<string, Message>;
  leaf: string | null;
}

export interface Info {
  model_id: string;
  max_input_tokens: number;
  max_total_tokens: number;
  max_stop_sequences: number;
  max_best_of: number;
  max_concurrent_requests: number;
  version: string;
  runtime: {
    model_type: string;
    dtype: string;
    device: string;
    quantize: string | null;
    activation_dtype: string | null;
    parameters: number;
    block_size: number;
    num_blocks: number;
    max_batch_size: number;
    kernels: Record<string, string>;
    memory: MemoryPlan;
    default_max_new_tokens: number | null;
    generation_defaults: {
      temperature: number | null;
      top_p: number | null;
      top_k: number | null;
      repetition_penalty: number | null;
      applied: boolean;
    };
    tool_calls: { format: string; reasoning: string | null; template_knows_tools: boolean };
    end_tokens: { id: number; text: string }[];
    max_top_n_tokens: number;
    max_stop_sequence_length: number;
    max_stop_token_ids: number;
    vocab_size: number;
    grammars: boolean;
    chat_template: boolean;
    api_key: boolean;
  };
}

export interface MemoryPlan {
  rows: { name: string; bytes: number; note: string }[];
  available_bytes: number;
  kv_bytes_per_token: number;
  cache_tokens: number;
  full_length_requests: number;
  binding_limit: string;
  lowered: string[];
}
