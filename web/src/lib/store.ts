/** Conversations in the browser's IndexedDB; where that is forbidden, for as long as the page is open. */
import type { Chat, Message, TokenInfo } from './types';

const NAME = 'tgi-playground';
const CHATS = 'chats';
let opened: Promise<IDBDatabase | null> | undefined;

function open(): Promise<IDBDatabase | null> {
  opened ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(CHATS, { keyPath: 'id' });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return opened;
}

async function run<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest<T>): Promise<T | undefined> {
  const database = await open();
  if (!database) return undefined;
  return new Promise((resolve, reject) => {
    const request = work(database.transaction(CHATS, mode).objectStore(CHATS));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * As it is kept: the tokens of an answer, thousands of objects with their alternatives, as one text. The database copies
 * a conversation whenever it is written, and copying them anew for each answer takes longer with every one.
 */
type Kept = Omit<Chat, 'messages'> & { messages: Record<string, Omit<Message, 'tokens'> & { tokens?: string | TokenInfo[] }> };

const texts = new WeakMap<TokenInfo[], string>();

function textOf(tokens: TokenInfo[]): string {
  const text = texts.get(tokens) ?? JSON.stringify(tokens);
  texts.set(tokens, text);
  return text;
}

/** Those that were kept before tokens were texts are lists. */
function tokensOf(kept: string | TokenInfo[]): TokenInfo[] {
  if (typeof kept !== 'string') return kept;
  const tokens: TokenInfo[] = JSON.parse(kept);
  texts.set(tokens, kept);
  return tokens;
}

function packed(chat: Chat): Kept {
  const messages: Kept['messages'] = {};
  for (const [id, one] of Object.entries(chat.messages)) messages[id] = one.tokens ? { ...one, tokens: textOf(one.tokens) } : { ...one, tokens: undefined };
  return { ...chat, messages };
}

function unpacked(kept: Kept): Chat {
  const messages: Chat['messages'] = {};
  for (const [id, one] of Object.entries(kept.messages)) messages[id] = { ...one, tokens: one.tokens ? tokensOf(one.tokens) : undefined };
  return { ...kept, messages };
}

export const allChats = async (): Promise<Chat[]> => ((await run('readonly', (store) => store.getAll())) ?? []).map(unpacked);
export const putChat = (chat: Chat) => run('readwrite', (store) => store.put(packed(chat)));
export const dropChat = (id: string) => run('readwrite', (store) => store.delete(id));
export const dropAll = () => run('readwrite', (store) => store.clear());

/** A small setting in localStorage; anything unreadable is as if it were not there. */
export function load<T>(name: string, fallback: T): T {
  try {
    const text = localStorage.getItem(`tgi.${name}`);
    return text === null ? fallback : (JSON.parse(text) as T);
  } catch {
    return fallback;
  }
}

export function save(name: string, value: unknown): void {
  try {
    localStorage.setItem(`tgi.${name}`, JSON.stringify(value));
  } catch {
    // Full or forbidden: the setting lasts as long as the page.
  }
}

export function forget(name: string): void {
  try {
    localStorage.removeItem(`tgi.${name}`);
  } catch {
    // Forbidden: then nothing is there.
  }
}
