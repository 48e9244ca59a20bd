/** Formulas in Markdown: $$…$$ and \[…\] on their own, $…$ and \(…\) within a line. */
import type { TokenizerAndRendererExtension } from 'marked';

const escape = (text: string): string => text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);

const BLOCK = /^ {0,3}(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/;
const INLINE = /^(?:\$\$([^$\n]+?)\$\$|\\\[([^\n]+?)\\\]|\\\(([^\n]+?)\\\)|\$((?:\\.|[^\\$\n\s])(?:(?:\\.|[^\\$\n])*?(?:\\.|[^\\$\n\s]))?)\$(?!\d))/;

export const mathExtensions: TokenizerAndRendererExtension[] = [
  {
    name: 'blockMath',
    level: 'block',
    start: (source) => source.match(/\$\$|\\\[/)?.index,
    tokenizer(source) {
      const found = BLOCK.exec(source);
      if (!found) return undefined;
      return { type: 'blockMath', raw: found[0], text: (found[1] ?? found[2] ?? '').trim() };
    },
    renderer: (token) => `<div data-math="block">${escape(token.text)}</div>`,
  },
  {
    name: 'inlineMath',
    level: 'inline',
    start: (source) => source.match(/\$|\\[([]/)?.index,
    tokenizer(source) {
      const found = INLINE.exec(source);
      if (!found) return undefined;
      const text = found.slice(1).find((part) => part !== undefined) ?? '';
      return { type: 'inlineMath', raw: found[0], text };
    },
    renderer: (token) => `<span data-math="inline">${escape(token.text)}</span>`,
  },
];
