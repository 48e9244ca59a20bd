/** Whether an answer follows the schema that was asked for. */
import { useEffect, useState } from 'preact/hooks';
import { t } from '../lib/i18n';
import type { Verdict } from '../lib/schema';
import { Icon } from './icons';

export function SchemaBadge({ answer, schema }: { answer: string; schema: string }) {
  const [found, setFound] = useState<Verdict | null>(null);
  useEffect(() => {
    void import('../lib/schema').then(({ verdict }) => setFound(verdict(answer, schema)));
  }, [answer, schema]);
  if (!found) return null;
  const text = found.ok ? t('validAnswer') : found.json ? t('invalidAnswer', { why: found.why }) : t('notJson');
  return (
    <p class={`badge ${found.ok ? 'good' : 'bad'}`}>
      <Icon name={found.ok ? 'check' : 'warn'} /> {text}
    </p>
  );
}
