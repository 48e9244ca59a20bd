/** The conversations: which there are, which is open, and how their trees grow. */
import { computed, signal } from '@preact/signals';
import { id } from '../lib/format';
import { allChats, dropAll, dropChat, forget, load, putChat, save } from '../lib/store';
import type { Chat, Message, Role } from '../lib/types';

export const chats = signal<Chat[]>([]);
export const openId = signal<string | null>(null);
export const open = computed(() => chats.value.find((chat) => chat.id === openId.value) ?? null);
/** System prompt of the conversation that has not begun. */
export const newSystem = signal('');

const TITLE_LENGTH = 60;

export async function loadChats(): Promise<void> {
  const kept = await withLeftOver((await allChats()).filter(isChat));
  chats.value = kept.sort((a, b) => b.updated - a.updated);
  const wanted = location.hash.match(/^#\/chat\/(.+)$/)?.[1];
  if (wanted && kept.some((chat) => chat.id === wanted)) openId.value = wanted;
}

export function isChat(value: any): value is Chat {
  return typeof value?.id === 'string' && typeof value.messages === 'object' && typeof value.title === 'string';
}

export function update(chat: Chat): void {
  const changed = { ...chat, updated: Date.now() };
  chats.value = [changed, ...chats.value.filter((one) => one.id !== chat.id)];
  unsaved.set(chat.id, changed);
  // A long conversation takes a moment to write: not in the frame that shows the end of an answer.
  clearTimeout(saving);
  saving = window.setTimeout(saveAll, SAVE_AFTER_MS);
}

const SAVE_AFTER_MS = 150;
const unsaved = new Map<string, Chat>();
let saving = 0;

function saveAll(): void {
  for (const chat of unsaved.values()) {
    const written = () => unsaved.get(chat.id) === chat && unsaved.delete(chat.id);
    putChat(chat).then(written, () => {});
  }
}

/** A page that is left has no time for the database: what is not in it yet waits where writing is immediate. */
addEventListener('pagehide', () => {
  leaving.keep();
  if (unsaved.size) save(LEFT_OVER, [...unsaved.values()]);
});
/** What to do before that: whoever writes an answer hands over what has come of it. */
export const leaving = { keep: () => {} };
const LEFT_OVER = 'unsaved';

async function withLeftOver(kept: Chat[]): Promise<Chat[]> {
  const left = load<Chat[]>(LEFT_OVER, []).filter(isChat);
  forget(LEFT_OVER);
  await Promise.all(left.map(putChat)).catch(() => {});
  return [...left, ...kept.filter((chat) => !left.some((one) => one.id === chat.id))];
}

/** The open conversation, begun if there is none. */
export function ensureOpen(): Chat {
  if (open.value) return open.value;
  const now = Date.now();
  const chat: Chat = { id: id(), title: '', system: newSystem.value, created: now, updated: now, messages: {}, leaf: null };
  openId.value = chat.id;
  update(chat);
  return chat;
}

export function setSystem(text: string): void {
  newSystem.value = text;
  if (open.value) update({ ...open.value, system: text });
}

export function blank(role: Role, parent: string | null, content = ''): Message {
  return { id: id(), parent, role, content, created: Date.now() };
}

/** The conversation with messages added or replaced; `leaf`: where it is shown to. */
export function withMessages(chat: Chat, added: Message[], leaf: string | null = chat.leaf): Chat {
  const messages = { ...chat.messages };
  for (const message of added) messages[message.id] = message;
  const first = added.find((message) => message.role === 'user');
  const title = chat.title || (first?.content ?? '').trim().replace(/\s+/g, ' ').slice(0, TITLE_LENGTH);
  return { ...chat, messages, leaf, title };
}

/** From the first message to the leaf. */
export function path(chat: Chat, leaf: string | null = chat.leaf): Message[] {
  const found: Message[] = [];
  for (let at = leaf; at; ) {
    const message: Message | undefined = chat.messages[at];
    if (!message) break;
    found.push(message);
    at = message.parent;
  }
  return found.reverse();
}

/** The versions of a message, the oldest first. */
export function versions(chat: Chat, message: Message): Message[] {
  return Object.values(chat.messages)
    .filter((one) => one.parent === message.parent)
    .sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
}

/** Show another version, and what followed it last. */
export function show(chat: Chat, message: Message): void {
  let leaf = message;
  for (;;) {
    const next = Object.values(chat.messages).filter((one) => one.parent === leaf.id);
    if (!next.length) break;
    leaf = next.reduce((a, b) => (a.created > b.created ? a : b));
  }
  update({ ...chat, leaf: leaf.id });
}

export function remove(chat: Chat): void {
  unsaved.delete(chat.id);
  chats.value = chats.value.filter((one) => one.id !== chat.id);
  if (openId.value === chat.id) openId.value = null;
  void dropChat(chat.id);
}

export function removeAll(): void {
  unsaved.clear();
  chats.value = [];
  openId.value = null;
  void dropAll();
}

/** As sent: the role, what was said, calls and their results. */
export function wire(chat: Chat, messages: Message[]): Record<string, unknown>[] {
  const system = chat.system.trim() ? [{ role: 'system', content: chat.system }] : [];
  return [...system, ...messages.map(oneForWire)];
}

function oneForWire(message: Message): Record<string, unknown> {
  if (message.role === 'tool') return { role: 'tool', tool_call_id: message.callId, content: message.content };
  const said: Record<string, unknown> = { role: message.role, content: message.content };
  if (message.reasoning) said.reasoning_content = message.reasoning;
  if (message.calls?.length) {
    said.tool_calls = message.calls.map((call) => ({
      id: call.id,
      type: 'function',
      function: { name: call.name, arguments: call.args },
    }));
  }
  return said;
}

export function asMarkdown(chat: Chat): string {
  const system = chat.system ? `> ${chat.system.replaceAll('\n', '\n> ')}\n\n` : '';
  const said = path(chat).map((message) => {
    const calls = (message.calls ?? []).map((call) => `\n\n\`\`\`json\n${call.name}(${call.args})\n\`\`\``).join('');
    return `**${message.role}**\n\n${message.content}${calls}\n`;
  });
  return `# ${chat.title}\n\n${system}${said.join('\n')}`;
}
