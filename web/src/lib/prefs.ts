/** Light or dark, and the language: both follow the browser until chosen. */
import { effect, signal } from '@preact/signals';
import { load, save } from './store';

export type Theme = 'auto' | 'light' | 'dark';
export type Language = 'en' | 'zh-Hant';

export const theme = signal<Theme>(load('theme', 'auto'));
export const language = signal<Language>(load('language', browserLanguage()));

function browserLanguage(): Language {
  return (navigator.language ?? 'en').toLowerCase().startsWith('zh') ? 'zh-Hant' : 'en';
}

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  save('theme', theme.value);
});
effect(() => {
  document.documentElement.lang = language.value;
  save('language', language.value);
});
