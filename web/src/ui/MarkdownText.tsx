/** Markdown in the page; the library comes when it is first needed, the text shows plainly until then. */
import { useEffect, useRef } from 'preact/hooks';
import { language } from '../lib/prefs';
import { t } from '../lib/i18n';
import { copyText } from './kit';
import type { MarkdownView } from '../lib/markdown';

let library: typeof import('../lib/markdown') | null = null;
/** Also called when the page has nothing better to do. */
export const coming = () => import('../lib/markdown').then((module) => (library = module));

async function onClick(event: MouseEvent): Promise<void> {
  const button = (event.target as HTMLElement).closest<HTMLButtonElement>('[data-copy]');
  if (!button) return;
  await copyText(button.closest('.code')!.querySelector('pre')!.textContent ?? '');
  button.textContent = t('copied');
  setTimeout(() => (button.textContent = t('copy')), 1500);
}

export function MarkdownText({ text, done }: { text: string; done: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  const view = useRef<MarkdownView | null>(null);
  const pending = useRef(0);
  const cost = useRef(0);
  const latest = useRef({ text, done });
  latest.current = { text, done };

  useEffect(() => {
    const draw = () => {
      pending.current = 0;
      if (!box.current) return;
      if (!library) {
        box.current.textContent = latest.current.text;
        return void coming().then(draw);
      }
      const began = performance.now();
      if (!view.current) box.current.replaceChildren();
      view.current ??= new library.MarkdownView(box.current);
      view.current.show(latest.current.text, latest.current.done);
      cost.current = performance.now() - began;
    };
    if (done) {
      clearTimeout(pending.current);
      draw();
    } else if (!pending.current) {
      // What takes long to draw is drawn less often: at most a fifth of the time goes into it.
      if (cost.current < 6) draw();
      else pending.current = window.setTimeout(draw, Math.min(cost.current * 5, 500));
    }
  }, [text, done, language.value]);
  useEffect(() => () => clearTimeout(pending.current), []);
  return (
    <div class="markdown" ref={box} onClick={onClick}>
      {null}
    </div>
  );
}
