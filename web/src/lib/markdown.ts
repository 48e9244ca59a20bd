/** Markdown that grows: finished blocks stay, only the last ones are read and drawn again. */
import DOMPurify from 'dompurify';
import hljs from 'highlight.js/lib/core';
import bash from 'highlight.js/lib/languages/bash';
import c from 'highlight.js/lib/languages/c';
import cpp from 'highlight.js/lib/languages/cpp';
import css from 'highlight.js/lib/languages/css';
import diff from 'highlight.js/lib/languages/diff';
import go from 'highlight.js/lib/languages/go';
import java from 'highlight.js/lib/languages/java';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import python from 'highlight.js/lib/languages/python';
import rust from 'highlight.js/lib/languages/rust';
import sql from 'highlight.js/lib/languages/sql';
import typescript from 'highlight.js/lib/languages/typescript';
import xml from 'highlight.js/lib/languages/xml';
import yaml from 'highlight.js/lib/languages/yaml';
import { Marked, type Token } from 'marked';
import { mathExtensions } from './math-syntax';
import { t } from './i18n';

for (const [name, language] of Object.entries({
  bash, c, cpp, css, diff, go, java, javascript, json, python, rust, sql, typescript, xml, yaml,
})) hljs.registerLanguage(name, language);

const LONGEST_HIGHLIGHTED = 20_000;
const marked = new Marked({ gfm: true, breaks: false, extensions: mathExtensions });
const escape = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);

marked.use({
  renderer: {
    code({ text, lang }) {
      const name = (lang ?? '').trim().split(/\s/)[0] ?? '';
      const known = hljs.getLanguage(name) && text.length < LONGEST_HIGHLIGHTED;
      const inner = known ? hljs.highlight(text, { language: name, ignoreIllegals: true }).value : escape(text);
      return `<pre data-lang="${escape(name)}"><code>${inner}</code></pre>`;
    },
    // What a model writes as HTML is shown, not run; and no picture is fetched from anywhere.
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    'a', 'b', 'blockquote', 'br', 'code', 'del', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'i', 'input', 'li', 'ol',
    'p', 'pre', 's', 'span', 'strong', 'sub', 'sup', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul', 'div',
  ],
  ALLOWED_ATTR: ['href', 'class', 'start', 'align', 'type', 'checked', 'disabled', 'data-lang', 'data-math'],
};

function html(token: Token): DocumentFragment {
  const dirty = marked.parser([token]);
  const clean = DOMPurify.sanitize(dirty, { ...ALLOWED, RETURN_DOM_FRAGMENT: true });
  for (const link of clean.querySelectorAll('a')) {
    link.target = '_blank';
    link.rel = 'noopener noreferrer';
  }
  for (const pre of clean.querySelectorAll('pre')) frame(pre);
  for (const table of clean.querySelectorAll('table')) scrolling(table);
  return clean;
}

/** A bar with the language and a copy button above a block of code. */
function frame(pre: HTMLPreElement): void {
  const box = document.createElement('div');
  box.className = 'code';
  const bar = document.createElement('div');
  bar.className = 'code-bar';
  const name = document.createElement('span');
  name.textContent = pre.dataset.lang ?? '';
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'code-copy';
  button.dataset.copy = '';
  button.textContent = t('copy');
  button.setAttribute('aria-label', t('copyCode'));
  bar.append(name, button);
  pre.replaceWith(box);
  pre.tabIndex = 0;
  box.append(bar, pre);
}

function scrolling(table: HTMLTableElement): void {
  const box = document.createElement('div');
  box.className = 'table';
  box.tabIndex = 0;
  table.replaceWith(box);
  box.append(table);
}

interface Block {
  raw: string;
  element: HTMLElement;
}

/** Draws a growing text into an element. */
export class MarkdownView {
  private blocks: Block[] = [];
  /** Characters of the text, and how many blocks, that will not change any more while it grows. */
  private settled = 0;
  private settledBlocks = 0;
  private text = '';

  constructor(private readonly root: HTMLElement) {}

  show(text: string, done: boolean): void {
    if (done || !text.startsWith(this.text.slice(0, this.settled))) this.settled = this.settledBlocks = 0;
    this.text = text;
    const tokens = marked.lexer(text.slice(this.settled));
    let at = this.settledBlocks;
    for (const token of tokens) this.put(at++, token);
    for (const extra of this.blocks.splice(at)) extra.element.remove();
    // A block may still grow until another has begun after it, and that one has more than white space.
    const keep = Math.max(0, tokens.length - 2);
    for (const token of tokens.slice(0, keep)) this.settled += token.raw.length;
    this.settledBlocks += keep;
  }

  private put(at: number, token: Token): void {
    const known = this.blocks[at];
    if (known?.raw === token.raw) return;
    const element = known?.element ?? document.createElement('div');
    element.className = 'block';
    element.replaceChildren(...(token.type === 'space' || token.type === 'def' ? [] : [html(token)]));
    if (element.querySelector('[data-math]')) void import('./math').then(({ draw }) => draw(element));
    if (!known) this.root.insertBefore(element, this.blocks[at]?.element ?? null);
    this.blocks[at] = { raw: token.raw, element };
  }
}
