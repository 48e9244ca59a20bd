/** The server as the page sees it: paths relative to the page, the key, errors in the server's own words, streams. */
import { signal } from '@preact/signals';

const KEY = 'tgi.key';

/** Kept until the tab is closed, and sent nowhere but to this server. */
export const apiKey = signal(sessionStorage.getItem(KEY) ?? '');
/** The dialog for the key: asked for, or wanted since the server has refused a request for want of one. */
export const keyDialog = signal<'' | 'asked' | 'wanted'>('');

export function setKey(key: string): void {
  apiKey.value = key;
  keyDialog.value = '';
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Absolute address of a path of this server, also below a proxy's path. */
export function address(path: string): string {
  return new URL(path, new URL('.', location.href)).href;
}

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

export async function call(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {};
  if (apiKey.value) headers['authorization'] = `Bearer ${apiKey.value}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  const response = await fetch(address(path), {
    method: body === undefined ? 'GET' : 'POST',
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache: 'no-store',
  });
  if (response.ok) return response;
  if (response.status === 401) keyDialog.value = 'wanted';
  throw new ApiError(said(await response.text(), response.status), response.status);
}

export async function getJson<T>(path: string): Promise<T> {
  return (await call(path)).json() as Promise<T>;
}

/** The events of a stream, all that came together at once; ends at [DONE]. Throws ApiError for an error event.
 * `onIgnored` is told which fields have no effect. */
export async function* stream(
  path: string,
  body: unknown,
  signal: AbortSignal,
  onIgnored: (names: string) => void = () => {},
): AsyncGenerator<any[]> {
  const response = await call(path, body, signal);
  onIgnored(response.headers.get('x-tgi-ignored') ?? '');
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      const lines = (rest + (value ?? '')).split('\n');
      rest = done ? '' : lines.pop()!;
      const events: any[] = [];
      for (const line of lines) {
        if (!line.startsWith('data:')) continue;
        const data = line.slice(5).trim();
        if (data === '[DONE]') continue;
        const event = JSON.parse(data);
        if (event.error) {
          if (events.length) yield events;
          throw new ApiError(said(data, 200), 200);
        }
        events.push(event);
      }
      if (events.length) yield events;
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function said(text: string, status: number): string {
  try {
    const body = JSON.parse(text);
    const error = body.error ?? body.message;
    return typeof error === 'string' ? error : (error?.message ?? text);
  } catch {
    return text || `HTTP ${status}`;
  }
}
