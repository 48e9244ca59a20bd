/** An answer token by token: colour tells the probability, hover, focus or touch the alternatives. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { t } from '../lib/i18n';
import { percent } from '../lib/format';
import type { Alternative, TokenInfo } from '../lib/types';

const BOUNDS = [0.9, 0.6, 0.3, 0.1, 0.02];

/** 0: as good as certain, 5: a surprise. */
export const level = (logprob: number): number => {
  const p = Math.exp(logprob);
  const found = BOUNDS.findIndex((bound) => p >= bound);
  return found < 0 ? BOUNDS.length : found;
};

/** A token as it reads, white space made visible. */
export const visible = (text: string): string =>
  text === '' ? '∅' : text.replaceAll('\n', '↵').replaceAll('\t', '⇥').replace(/^ | $/g, '␣');

interface Props {
  tokens: TokenInfo[];
  onPick?: (position: number, token: TokenInfo) => void;
}

interface Shown {
  position: number;
  left: number;
  top: number;
  pinned: boolean;
}

export function TokenView({ tokens, onPick }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLDivElement>(null);
  const drawn = useRef<TokenInfo[]>([]);
  const [shown, setShown] = useState<Shown | null>(null);
  const active = useRef(0);
  const leaving = useRef(0);

  useEffect(() => grow(list.current!, drawn, tokens), [tokens]);

  const open = (element: HTMLElement, pinned: boolean) => {
    clearTimeout(leaving.current);
    const outer = box.current!.getBoundingClientRect();
    const inner = element.getClientRects()[0] ?? element.getBoundingClientRect();
    const left = Math.max(0, Math.min(inner.left - outer.left, outer.width - 260));
    active.current = Number(element.dataset.i);
    setShown({ position: active.current, left, top: inner.bottom - outer.top, pinned });
  };
  const token = (event: Event) => (event.target as HTMLElement).closest<HTMLElement>('[data-i]');
  const leave = () => {
    leaving.current = window.setTimeout(() => setShown((now) => (now?.pinned ? now : null)), 180);
  };
  const move = (step: number) => {
    const next = Math.max(0, Math.min(tokens.length - 1, active.current + step));
    const element = list.current!.children[next] as HTMLElement | undefined;
    element?.scrollIntoView({ block: 'nearest' });
    if (element) open(element, false);
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.target !== list.current) return;
    const steps: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };
    if (event.key in steps) move(steps[event.key]!);
    else if (event.key === 'Enter' || event.key === ' ') {
      const element = list.current!.children[active.current] as HTMLElement | undefined;
      if (element) open(element, true);
      setTimeout(() => box.current?.querySelector<HTMLButtonElement>('.alternatives button:not(:disabled)')?.focus(), 30);
    } else if (event.key === 'Escape') setShown(null);
    else return;
    event.preventDefault();
  };
  const now = shown && tokens[shown.position];
  return (
    <div class="token-view" ref={box} onMouseLeave={leave}>
      <div
        ref={list}
        class="tokens"
        tabIndex={0}
        role="group"
        aria-roledescription={t('tokensView')}
        aria-label={`${t('tokensView')}. ${t('tokenKeys')}`}
        onKeyDown={onKey}
        onMouseOver={(event) => {
          const element = token(event);
          if (element && !shown?.pinned) open(element, false);
        }}
        onClick={(event) => {
          const element = token(event);
          if (element) open(element, true);
        }}
      />
      {shown && now && (
        <Alternatives
          key={shown.position}
          token={now}
          place={shown}
          onPick={onPick && ((other) => { setShown(null); onPick(shown.position, { ...other, top: now.top }); })}
          onStay={() => clearTimeout(leaving.current)}
          onLeave={leave}
          onClose={() => { setShown(null); list.current?.focus(); }}
        />
      )}
    </div>
  );
}

/** Draws what is new; a list of thousands is not drawn again for one more. */
function grow(list: HTMLElement, drawn: { current: TokenInfo[] }, tokens: TokenInfo[]): void {
  const known = drawn.current;
  let same = 0;
  while (same < known.length && known[same] === tokens[same]) same++;
  while (list.children.length > same) list.lastElementChild!.remove();
  const fresh = document.createDocumentFragment();
  for (let i = same; i < tokens.length; i++) {
    const span = document.createElement('span');
    span.className = `token l${level(tokens[i]!.logprob)}`;
    span.dataset.i = String(i);
    span.textContent = tokens[i]!.shown ?? (tokens[i]!.text.replaceAll('\n', '↵\n') || '∅');
    fresh.append(span);
  }
  list.append(fresh);
  drawn.current = tokens;
}

/** Half of a character cannot be written into a text to go on from. */
const isPartial = (text: string): boolean => text === '' || text.includes('\uFFFD');

interface AlternativesProps {
  token: TokenInfo;
  place: Shown;
  onPick?: (other: Alternative) => void;
  onStay: () => void;
  onLeave: () => void;
  onClose: () => void;
}

function Alternatives({ token, place, onPick, onStay, onLeave, onClose }: AlternativesProps) {
  const name = (one: Alternative) => one.shown ?? one.text;
  const among = token.top.some((one) => name(one) === name(token));
  const all = among ? token.top : [...token.top, token];
  return (
    <div
      class="alternatives"
      role="dialog"
      aria-label={t('alternatives')}
      style={{ left: `${place.left}px`, top: `${place.top}px` }}
      onMouseEnter={onStay}
      onMouseLeave={onLeave}
      onKeyDown={(event) => event.key === 'Escape' && onClose()}
    >
      {all.map((one, i) => {
        const chosen = name(one) === name(token);
        return (
          <button
            key={i}
            type="button"
            class={chosen ? 'chosen' : ''}
            disabled={!onPick || chosen || isPartial(one.text)}
            aria-current={chosen || undefined}
            title={chosen ? t('chosen') : t('continueFrom', { token: one.text })}
            onClick={() => onPick?.(one)}
          >
            <span class="bar" style={{ width: `${Math.exp(one.logprob) * 100}%` }} />
            <code>{one.shown ?? visible(one.text)}</code>
            <span class="share">{percent(one.logprob)}</span>
          </button>
        );
      })}
    </div>
  );
}

export function TokenLegend({ tokens }: { tokens: TokenInfo[] }) {
  const mean = tokens.reduce((sum, one) => sum + one.logprob, 0) / Math.max(tokens.length, 1);
  return (
    <div class="legend">
      <span>{t('tokenLegend')}</span>
      {['>90%', '60', '30', '10', '2', '<2%'].map((text, i) => (
        <span key={text} class={`token l${i}`}>
          {text}
        </span>
      ))}
      <span class="muted">{t('meanProbability', { n: Math.exp(-mean).toFixed(2) })}</span>
    </div>
  );
}
