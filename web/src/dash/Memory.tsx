/** Where the memory goes, as a bar and in words. */
import { bytes, number } from '../lib/format';
import { t } from '../lib/i18n';
import type { MemoryPlan } from '../lib/types';

/** The plan's own row of what nobody takes. */
const LEFT = 'left free';
const colour = (name: string, i: number): string => (name === LEFT ? 'none' : `c${(i % 5) + 1}`);

export function Memory({ plan }: { plan: MemoryPlan }) {
  const rows = plan.rows.filter((row) => row.bytes > 0);
  const used = rows.reduce((sum, row) => sum + (row.name === LEFT ? 0 : row.bytes), 0);
  const all = Math.max(plan.available_bytes, used);
  const free = rows.some((row) => row.name === LEFT) ? 0 : all - used;
  return (
    <section class="card" aria-label={t('memory')}>
      <h2>
        {t('memory')} <span class="muted">{t('memoryOf', { used: bytes(used), all: bytes(all) })}</span>
      </h2>
      <div class="memory-bar" role="img" aria-label={rows.map((row) => `${row.name} ${bytes(row.bytes)}`).join(', ')}>
        {rows.map((row, i) => (
          <span key={row.name} class={`part ${colour(row.name, i)}`} style={{ width: `${(row.bytes / all) * 100}%` }} title={`${row.name}: ${bytes(row.bytes)}`} />
        ))}
      </div>
      <ul class="memory-rows">
        {rows.map((row, i) => (
          <li key={row.name}>
            <i class={`key ${colour(row.name, i)}`} />
            <span>{row.name}</span>
            <b>{bytes(row.bytes)}</b>
            {row.note && <small>{row.note}</small>}
          </li>
        ))}
        {free > 0 && (
          <li>
            <i class="key none" />
            <span>{t('memoryFree')}</span>
            <b>{bytes(free)}</b>
          </li>
        )}
      </ul>
      <p class="muted">{t('cacheHolds', { tokens: number(plan.cache_tokens), n: number(plan.full_length_requests, 1) })}</p>
      <p class="muted">{t('bindingLimit', { limit: plan.binding_limit })}</p>
      {plan.lowered.map((line) => (
        <p key={line} class="warn-text">{line}</p>
      ))}
    </section>
  );
}
