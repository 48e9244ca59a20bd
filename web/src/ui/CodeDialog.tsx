/** The next request as a command or a program. */
import { useState } from 'preact/hooks';
import { asCode, type CodeLanguage } from '../lib/code';
import { apiKey } from '../lib/api';
import { t } from '../lib/i18n';
import { info } from '../state/server';
import { CopyButton, Dialog, Segments } from './kit';

export function CodeDialog(props: { path: string; body: () => Record<string, unknown>; onClose: () => void }) {
  const [language, setLanguage] = useState<CodeLanguage>('curl');
  let code: string;
  try {
    const withKey = !!apiKey.value || !!info.value?.runtime.api_key;
    code = asCode(language, props.path, props.body(), withKey);
  } catch (error) {
    code = t('badJson', { why: (error as Error).message });
  }
  return (
    <Dialog title={t('codeTitle')} onClose={props.onClose} wide>
      <div class="row spread">
        <Segments
          label={t('language')}
          value={language}
          options={[['curl', t('curl')], ['python', t('python')], ['javascript', t('javascript')]]}
          onChange={setLanguage}
        />
        <CopyButton text={() => code} visible />
      </div>
      <pre class="plain tall" tabIndex={0}>{code}</pre>
      <p class="muted">{t('codeHelp')}</p>
    </Dialog>
  );
}
