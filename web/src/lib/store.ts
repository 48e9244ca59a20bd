/** Conversations in the browser's IndexedDB; where that is forbidden, for as long as the page is open. */
import type { Chat } from './types';

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

export const allChats = async (): Promise<Chat[]> => (await run('readonly', (store) => store.getAll())) ?? [];
export const putChat = (chat: Chat) => run('readwrite', (store) => store.put(chat));
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
