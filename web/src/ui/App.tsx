/** The playground: a bar, conversations to the left, settings to the right, one of three views between them. */
import { effect, signal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { compact, number } from '../lib/format';
import { t } from '../lib/i18n';
import { load, save } from '../lib/store';
import { chats, openId } from '../state/chats';
import { announced, busy } from '../state/run';
import { info, modelName, shortName, unreachable } from '../state/server';
import type { Side } from '../state/params';
import { ChatView } from './ChatView';
import { CompareView } from './CompareView';
import { CompletionView } from './CompletionView';
import { Icon } from './icons';
import { IconButton, Segments } from './kit';
import { SettingsPanel } from './SettingsPanel';
import { Sidebar, startChat } from './Sidebar';
import { KeyAsker, PageButtons } from './TopBar';

type View = 'chat' | 'compare' | 'complete';
const narrow = matchMedia('(max-width: 900px)');
const view = signal<View>(viewOf(location.hash));
const left = signal(!narrow.matches && load('left', true));
const right = signal(!narrow.matches && matchMedia('(min-width: 1200px)').matches && load('right', true));
const side = signal<Side>('a');

function viewOf(hash: string): View {
  return hash.startsWith('#/compare') ? 'compare' : hash.startsWith('#/complete') ? 'complete' : 'chat';
}

function go(next: View): void {
  view.value = next;
  location.hash = next === 'chat' && openId.value ? `#/chat/${openId.value}` : `#/${next}`;
  if (next !== 'compare') side.value = 'a';
}

function toggle(panel: typeof left, name: string, value = !panel.value): void {
  panel.value = value;
  if (narrow.matches) {
    if (value) (panel === left ? right : left).value = false;
  } else save(name, value);
}

function useKeys(): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const command = (event.ctrlKey || event.metaKey) && event.shiftKey;
      if (command && event.key.toLowerCase() === 'o') {
        event.preventDefault();
        go('chat');
        startChat();
      } else if (event.key === 'Escape' && narrow.matches) left.value = right.value = false;
    };
    const onHash = () => {
      view.value = viewOf(location.hash);
      const wanted = location.hash.match(/^#\/chat\/(.+)$/)?.[1];
      if (wanted && !busy.value && chats.value.some((chat) => chat.id === wanted)) openId.value = wanted;
    };
    // The address is that of the conversation, so that a reload comes back to it.
    const follow = effect(() => {
      const id = openId.value;
      if (view.value === 'chat' && id) history.replaceState(null, '', `#/chat/${id}`);
    });
    addEventListener('keydown', onKey);
    addEventListener('hashchange', onHash);
    return () => {
      follow();
      removeEventListener('keydown', onKey);
      removeEventListener('hashchange', onHash);
    };
  }, []);
}

export function App() {
  useKeys();
  const drawer = narrow.matches && (left.value || right.value);
  return (
    <div class={`app ${left.value ? 'left-open' : ''} ${right.value ? 'right-open' : ''} view-${view.value}`}>
      <a class="skip" href="#message" onClick={(event) => { event.preventDefault(); document.getElementById('message')?.focus(); }}>{t('skip')}</a>
      <header class="top">
        <IconButton icon="menu" label={t(left.value ? 'hideConversations' : 'showConversations')} expanded={left.value} onClick={() => toggle(left, 'left')} />
        <Model />
        <Segments label={t('views')} value={view.value} options={[['chat', t('chat')], ['compare', t('compare')], ['complete', t('completion')]]} onChange={go} />
        <div class="top-right">
          <span class="wide-only"><PageLinks /></span>
          <IconButton icon="sliders" label={t(right.value ? 'hideSettings' : 'showSettings')} expanded={right.value} onClick={() => toggle(right, 'right')} />
        </div>
      </header>
      <div class="left" inert={!left.value}>
        <Sidebar onPick={() => { go('chat'); if (narrow.matches) left.value = false; }} />
        <div class="narrow-only"><Model /><PageLinks /></div>
      </div>
      <main inert={drawer || undefined}>
        {unreachable.value && <p class="banner" role="alert"><Icon name="warn" /> {t('serverDown')}</p>}
        {view.value === 'chat' && <ChatView />}
        {view.value === 'compare' && <CompareView side={side.value} onSide={(next) => { side.value = next; right.value = true; }} />}
        {view.value === 'complete' && <CompletionView />}
      </main>
      <aside class="right" inert={!right.value} aria-label={t('settings')}>
        <div class="panel-head">
          <h2>{t('settings')}</h2>
          {view.value === 'compare' && (
            <Segments label={t('settings')} value={side.value} options={[['a', 'A'], ['b', 'B']]} onChange={(next) => (side.value = next)} />
          )}
          <IconButton icon="close" label={t('hideSettings')} onClick={() => toggle(right, 'right', false)} />
        </div>
        <SettingsPanel key={side.value} side={side.value} view={view.value} />
      </aside>
      {drawer && <div class="shade" onClick={() => (left.value = right.value = false)} />}
      <KeyAsker />
      <div class="sr" role="status" aria-live="polite">{announced.value}</div>
    </div>
  );
}

function PageLinks() {
  return (
    <>
      <a class="icon-button" href="dashboard" aria-label={t('dashboard')} title={t('dashboard')}><Icon name="chart" /></a>
      <PageButtons />
    </>
  );
}

function Model() {
  const told = info.value;
  if (!told) return <div class="model" />;
  const { runtime } = told;
  const facts = [compact(runtime.parameters), runtime.quantize ?? runtime.dtype, runtime.device, `${number(told.max_total_tokens)} ctx`];
  return (
    <div class="model" title={`${modelName.value}\n${facts.join(' · ')}`}>
      <strong>{shortName(modelName.value)}</strong>
      <span>{facts.join(' · ')}</span>
    </div>
  );
}
