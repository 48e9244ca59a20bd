/** The bar that both pages have: where one is, and how the page looks and speaks. */
import { useState } from 'preact/hooks';
import { apiKey, keyDialog, setKey } from '../lib/api';
import { t } from '../lib/i18n';
import { language, theme, type Language } from '../lib/prefs';
import { Dialog, IconButton } from './kit';

export function PageButtons() {
  const themes = { auto: ['auto', 'light', 'themeAuto'], light: ['sun', 'dark', 'themeLight'], dark: ['moon', 'auto', 'themeDark'] } as const;
  const [icon, next, name] = themes[theme.value];
  const other: Language = language.value === 'en' ? 'zh-Hant' : 'en';
  return (
    <>
      <IconButton icon="key" class={apiKey.value ? 'on' : ''} label={t(apiKey.value ? 'apiKeySet' : 'apiKeyNone')} onClick={() => (keyDialog.value = 'asked')} />
      <IconButton icon={icon} label={`${t('theme')}: ${t(name)}`} onClick={() => (theme.value = next)} />
      <button type="button" class="icon-button language" lang={other} title={other === 'en' ? 'English' : '繁體中文'} aria-label={other === 'en' ? 'English' : '繁體中文'} onClick={() => (language.value = other)}>
        {other === 'en' ? 'EN' : '中'}
      </button>
    </>
  );
}

/** Shown where it is needed; once a page. */
export function KeyAsker() {
  return keyDialog.value ? <KeyDialog /> : null;
}

function KeyDialog() {
  const [value, setValue] = useState(apiKey.value);
  const wanted = keyDialog.value === 'wanted';
  const onClose = () => (keyDialog.value = '');
  const store = (key: string) => setKey(key.trim());
  return (
    <Dialog title={t('apiKey')} onClose={onClose}>
      {wanted && <p role="alert">{t('apiKeyWanted')}</p>}
      <input class="wide-input mono" type="password" autocomplete="off" aria-label={t('apiKey')} value={value} onInput={(event) => setValue(event.currentTarget.value)} onKeyDown={(event) => event.key === 'Enter' && store(value)} />
      <p class="muted">{t('apiKeyHelp')}</p>
      <div class="dialog-actions">
        {apiKey.value && <button type="button" onClick={() => store('')}>{t('forget')}</button>}
        <button type="button" class="primary" onClick={() => store(value)}>{t('save')}</button>
      </div>
    </Dialog>
  );
}
