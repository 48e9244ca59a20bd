/** The conversations of this browser. */
import { signal } from '@preact/signals';
import { useRef, useState } from 'preact/hooks';
import { id } from '../lib/format';
import { t, type Key } from '../lib/i18n';
import type { Chat } from '../lib/types';
import { asMarkdown, chats, isChat, newSystem, openId, remove, removeAll, update } from '../state/chats';
import { busy } from '../state/run';
import { Icon } from './icons';
import { Confirm, Dialog } from './kit';

const asked = signal<{ kind: 'delete' | 'rename' | 'all' | 'import'; chat?: Chat } | null>(null);

export function startChat(): void {
  if (busy.value) return;
  openId.value = null;
  newSystem.value = '';
  location.hash = '#/chat';
  setTimeout(() => document.getElementById('message')?.focus());
}

export function Sidebar({ onPick }: { onPick: () => void }) {
  const [query, setQuery] = useState('');
  const wanted = query.trim().toLowerCase();
  const found = chats.value.filter((chat) => !wanted || matches(chat, wanted));
  return (
    <nav class="sidebar" aria-label={t('conversations')}>
      <button type="button" class="new-chat" disabled={busy.value} onClick={() => { startChat(); onPick(); }}>
        <Icon name="plus" /> {t('newChat')}
      </button>
      {chats.value.length > 6 && (
        <label class="search">
          <Icon name="search" />
          <span class="sr">{t('searchChats')}</span>
          <input type="search" value={query} placeholder={t('searchChats')} onInput={(event) => setQuery(event.currentTarget.value)} />
        </label>
      )}
      <div class="chat-list">
        {groups(found).map(([name, list]) => (
          <section key={name} aria-label={t(name)}>
            <h2>{t(name)}</h2>
            <ul>
              {list.map((chat) => (
                <Item key={chat.id} chat={chat} onPick={onPick} />
              ))}
            </ul>
          </section>
        ))}
        {!found.length && <p class="muted pad">{t(wanted ? 'noMatches' : 'noChats')}</p>}
      </div>
      <Footer />
      <Asked />
    </nav>
  );
}

const matches = (chat: Chat, query: string): boolean =>
  chat.title.toLowerCase().includes(query) || Object.values(chat.messages).some((one) => one.content.toLowerCase().includes(query));

function groups(list: Chat[]): [Key, Chat[]][] {
  const day = new Date().setHours(0, 0, 0, 0);
  const at = (from: number, to: number) => list.filter((chat) => chat.updated >= from && chat.updated < to);
  const all: [Key, Chat[]][] = [
    ['today', at(day, Infinity)],
    ['yesterday', at(day - 864e5, day)],
    ['week', at(day - 7 * 864e5, day - 864e5)],
    ['older', at(-Infinity, day - 7 * 864e5)],
  ];
  return all.filter(([, some]) => some.length);
}

function Item({ chat, onPick }: { chat: Chat; onPick: () => void }) {
  const current = chat.id === openId.value;
  const menu = useRef<HTMLDetailsElement>(null);
  const act = (work: () => void) => () => {
    menu.current!.open = false;
    work();
  };
  return (
    <li class={current ? 'current' : ''}>
      <a
        href={`#/chat/${chat.id}`}
        aria-current={current ? 'page' : undefined}
        onClick={(event) => {
          event.preventDefault();
          if (busy.value) return;
          openId.value = chat.id;
          location.hash = `#/chat/${chat.id}`;
          onPick();
        }}
      >
        {chat.title || t('untitled')}
      </a>
      <details
        class="menu"
        ref={menu}
        onKeyDown={(event) => event.key === 'Escape' && (menu.current!.open = false)}
        onFocusOut={(event) => !menu.current!.contains(event.relatedTarget as Node) && (menu.current!.open = false)}
      >
        <summary class="icon-button" aria-label={`${t('more')}: ${chat.title || t('untitled')}`}>
          <Icon name="more" />
        </summary>
        <div class="menu-items">
          <button type="button" onClick={act(() => (asked.value = { kind: 'rename', chat }))}>{t('rename')}</button>
          <button type="button" onClick={act(() => download(`${name(chat)}.md`, asMarkdown(chat), 'text/markdown'))}>{t('exportMarkdown')}</button>
          <button type="button" onClick={act(() => download(`${name(chat)}.json`, JSON.stringify([chat], null, 2), 'application/json'))}>{t('exportJson')}</button>
          <button type="button" class="danger-text" disabled={busy.value} onClick={act(() => (asked.value = { kind: 'delete', chat }))}>{t('delete')}</button>
        </div>
      </details>
    </li>
  );
}

const name = (chat: Chat): string => (chat.title || 'chat').replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 40);

function download(file: string, text: string, type: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function Footer() {
  const file = useRef<HTMLInputElement>(null);
  const read = async (chosen: File) => {
    try {
      const found = [JSON.parse(await chosen.text())].flat();
      if (!found.length || !found.every(isChat)) throw new Error();
      for (const chat of found) update({ ...chat, id: id() });
    } catch {
      asked.value = { kind: 'import' };
    }
  };
  return (
    <div class="side-foot">
      <button type="button" class="quiet" onClick={() => file.current!.click()}>{t('importJson')}</button>
      <input
        ref={file}
        type="file"
        accept="application/json,.json"
        hidden
        onChange={(event) => {
          const chosen = event.currentTarget.files?.[0];
          event.currentTarget.value = '';
          if (chosen) void read(chosen);
        }}
      />
      {chats.value.length > 0 && (
        <>
          <button type="button" class="quiet" onClick={() => download('conversations.json', JSON.stringify(chats.value, null, 2), 'application/json')}>{t('exportJson')}</button>
          <button type="button" class="quiet" disabled={busy.value} onClick={() => (asked.value = { kind: 'all' })}>{t('deleteAll')}</button>
        </>
      )}
    </div>
  );
}

function Asked() {
  const now = asked.value;
  const close = () => (asked.value = null);
  const [title, setTitle] = useState('');
  if (!now) return null;
  if (now.kind === 'import') return <Dialog title={t('importJson')} onClose={close}><p role="alert">{t('importFailed')}</p></Dialog>;
  if (now.kind === 'all') return <Confirm title={t('deleteAllSure')} action={t('deleteAll')} onYes={removeAll} onClose={close} />;
  const chat = now.chat!;
  if (now.kind === 'delete') {
    return <Confirm title={t('deleteChat', { title: chat.title || t('untitled') })} action={t('delete')} onYes={() => remove(chat)} onClose={close} />;
  }
  const submit = () => {
    update({ ...chat, title: title.trim() || chat.title });
    setTitle('');
    close();
  };
  return (
    <Dialog title={t('rename')} onClose={close}>
      <input class="wide-input" aria-label={t('rename')} defaultValue={chat.title} onInput={(event) => setTitle(event.currentTarget.value)} onKeyDown={(event) => event.key === 'Enter' && submit()} />
      <div class="dialog-actions">
        <button type="button" onClick={close}>{t('cancel')}</button>
        <button type="button" class="primary" onClick={submit}>{t('save')}</button>
      </div>
    </Dialog>
  );
}
