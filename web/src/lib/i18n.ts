/** The words of the page in both languages; a key that one of them lacks does not compile. */
import { en } from './strings.en';
import { zh } from './strings.zh';
import { language } from './prefs';

export type Words = typeof en;
export type Key = keyof Words;

const words: Record<string, Words> = { en, 'zh-Hant': zh };

/** The sentence for a key, `{name}` replaced; read inside a component it follows the language. */
export function t(key: Key, values?: Record<string, string | number>): string {
  let text: string = words[language.value]![key];
  if (values) for (const [name, value] of Object.entries(values)) text = text.replaceAll(`{${name}}`, String(value));
  return text;
}
