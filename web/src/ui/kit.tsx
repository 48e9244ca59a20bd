/** Small parts that all views use. */
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { t } from '../lib/i18n';
import { Icon, type IconName } from './icons';

interface ButtonProps {
  icon: IconName;
  label: string;
  onClick: (event: MouseEvent) => void;
  class?: string;
  disabled?: boolean;
  pressed?: boolean;
  expanded?: boolean;
  text?: boolean;
}

export function IconButton({ icon, label, onClick, class: extra, disabled, pressed, expanded, text }: ButtonProps) {
  return (
    <button
      type="button"
      class={`icon-button ${extra ?? ''} ${text ? 'with-text' : ''}`}
      aria-label={label}
      title={text ? undefined : label}
      disabled={disabled}
      aria-pressed={pressed}
      aria-expanded={expanded}
      onClick={onClick}
    >
      <Icon name={icon} />
      {text && <span>{label}</span>}
    </button>
  );
}

/** A modal dialog of the browser's own: it holds the focus, and Escape closes it. */
export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean }) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = box.current!;
    dialog.showModal();
    dialog.querySelector<HTMLElement>('.dialog-body :is(input, button)')?.focus();
    return () => dialog.close();
  }, []);
  return (
    <dialog
      ref={box}
      class={props.wide ? 'wide' : ''}
      aria-label={props.title}
      onClose={props.onClose}
      onClick={(event) => event.target === box.current && props.onClose()}
    >
      <div class="dialog-head">
        <h2>{props.title}</h2>
        <IconButton icon="close" label={t('close')} onClick={props.onClose} />
      </div>
      <div class="dialog-body">{props.children}</div>
    </dialog>
  );
}

export function Confirm(props: { title: string; action: string; onYes: () => void; onClose: () => void }) {
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <p>{t('cannotUndo')}</p>
      <div class="dialog-actions">
        <button type="button" onClick={props.onClose}>
          {t('cancel')}
        </button>
        <button
          type="button"
          class="danger"
          onClick={() => {
            props.onYes();
            props.onClose();
          }}
        >
          {props.action}
        </button>
      </div>
    </Dialog>
  );
}

export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement('textarea'); // without TLS there is no clipboard interface
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
}

export function CopyButton({ text, label, visible }: { text: () => string; label?: string; visible?: boolean }) {
  const [done, setDone] = useState(false);
  return (
    <IconButton
      icon={done ? 'check' : 'copy'}
      label={done ? t('copied') : (label ?? t('copy'))}
      text={visible}
      onClick={async () => {
        await copyText(text());
        setDone(true);
        setTimeout(() => setDone(false), 1500);
      }}
    />
  );
}

/** A text area as high as its text, up to what the style sheet allows. */
export function GrowingText(props: {
  value: string;
  onInput: (text: string) => void;
  label: string;
  placeholder?: string;
  id?: string;
  class?: string;
  rows?: number;
  onKeyDown?: (event: KeyboardEvent) => void;
  focus?: boolean;
  invalid?: boolean;
  describedBy?: string;
}) {
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const element = area.current!;
    element.style.height = 'auto';
    element.style.height = `${element.scrollHeight + 2}px`;
  }, [props.value]);
  useEffect(() => {
    if (props.focus) area.current!.focus();
  }, []);
  return (
    <textarea
      ref={area}
      id={props.id}
      class={props.class}
      rows={props.rows ?? 1}
      value={props.value}
      aria-label={props.label}
      aria-invalid={props.invalid || undefined}
      aria-describedby={props.describedBy}
      placeholder={props.placeholder}
      onInput={(event) => props.onInput(event.currentTarget.value)}
      onKeyDown={props.onKeyDown}
    />
  );
}

/** Enter without Shift, and not the Enter that ends the input of a Chinese word. */
export const isSubmit = (event: KeyboardEvent): boolean => event.key === 'Enter' && !event.shiftKey && !event.isComposing;

export function Segments<T extends string>(props: { label: string; value: T; options: [T, string][]; onChange: (value: T) => void }) {
  return (
    <div class="segments" role="group" aria-label={props.label}>
      {props.options.map(([value, text]) => (
        <button key={value} type="button" aria-pressed={value === props.value} onClick={() => props.onChange(value)}>
          {text}
        </button>
      ))}
    </div>
  );
}
