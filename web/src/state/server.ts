/** What the server says of itself, asked for until it answers. */
import { signal } from '@preact/signals';
import { getJson } from '../lib/api';
import type { Info } from '../lib/types';

export const info = signal<Info | null>(null);
export const modelName = signal('');
export const unreachable = signal(false);

export async function askServer(): Promise<void> {
  try {
    const [told, models] = await Promise.all([getJson<Info>('info'), getJson<{ data: { id: string }[] }>('v1/models')]);
    info.value = told;
    modelName.value = models.data[0]?.id ?? told.model_id;
    unreachable.value = false;
    document.title = `${shortName(modelName.value)} · Playground`;
  } catch {
    unreachable.value = true;
    setTimeout(askServer, 2000);
  }
}

/** The last part of a path or a hub id. */
export const shortName = (name: string): string => name.replace(/\/+$/, '').split('/').pop() || name;
