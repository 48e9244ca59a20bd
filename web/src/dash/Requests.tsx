/** The last requests, and of the chosen one where its time went. */
import { number, seconds } from '../lib/format';
import { t, type Key } from '../lib/i18n';
import { byNumber, chosen, shot, type Reason, type RequestTimes } from './data';

interface Phase {
  name: Key;
  kind: string;
  from: number;
  to: number;
}

/** The parts of a request's time, up to `now` for one that is open: the last is what it is in. */
export function phases(one: RequestTimes, now: number): Phase[] {
  const end = one.ended_s ?? Math.max(0, now - one.arrived_at);
  const steps: [Key, string, number | undefined][] = [
    ['phaseLine', 'line', one.permitted_s],
    ['phaseCheck', 'check', one.validated_s],
    ['phaseQueue', 'queue', one.scheduled_s],
    ['phasePrefill', 'prefill', one.first_token_s],
    ['phaseDecode', 'decode', end],
  ];
  let at = 0;
  const found: Phase[] = [];
  for (const [name, kind, moment] of steps) {
    const to = Math.max(moment ?? end, at);
    found.push({ name, kind, from: at, to });
    if (moment === undefined) break;
    at = to;
  }
  return found;
}

const clock = (time: number): string => new Date(time * 1000).toLocaleTimeString([], { hour12: false });

export function outcome(one: RequestTimes): string {
  const known: Record<string, Key> = { '': 'outcomeOpen', ok: 'outcomeOk', left: 'outcomeLeft' };
  return known[one.outcome] ? t(known[one.outcome]!) : one.outcome;
}

export function Requests() {
  const now = shot.value!;
  const all = [...now.open].reverse().concat(now.requests).slice(0, 60);
  const longest = Math.max(0.001, ...all.map((one) => one.ended_s ?? now.now.time - one.arrived_at));
  return (
    <section class="card requests" aria-label={t('requests')}>
      <h2>{t('requests')}</h2>
      {!all.length && <p class="muted">{t('noRequests')}</p>}
      {all.length > 0 && (
        <div class="request-table" tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th>{t('request')}</th>
                <th>{t('time')}</th>
                <th>{t('route')}</th>
                <th class="right-text">{t('tokensInOut')}</th>
                <th class="right-text">{t('firstTokenShort')}</th>
                <th class="right-text">{t('duration')}</th>
                <th class="wide-cell">{t('timeline')}</th>
              </tr>
            </thead>
            <tbody>
              {all.map((one) => (
                <Row key={one.number} one={one} longest={longest} now={now.now.time} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function Row({ one, longest, now }: { one: RequestTimes; longest: number; now: number }) {
  const whole = one.ended_s ?? now - one.arrived_at;
  const bad = one.outcome !== '' && one.outcome !== 'ok';
  return (
    <tr class={`${chosen.value === one.number ? 'chosen' : ''} ${bad ? 'bad-row' : ''}`} onClick={() => (chosen.value = one.number)}>
      <td>
        <button type="button" class="link" aria-pressed={chosen.value === one.number} onClick={() => (chosen.value = one.number)}>
          #{one.number}
        </button>
      </td>
      <td>{clock(one.arrived_at)}</td>
      <td>
        {one.route} {one.outcome !== 'ok' && <span class={`tag ${bad ? 'bad' : ''}`}>{outcome(one)}</span>}
      </td>
      <td class="right-text">
        {number(one.prompt_tokens ?? 0)} / {number(one.generated_tokens ?? 0)}
      </td>
      <td class="right-text">{one.first_token_s === undefined ? '' : seconds(one.first_token_s)}</td>
      <td class="right-text">{seconds(whole)}</td>
      <td class="wide-cell">
        <Bar list={phases(one, now)} scale={longest} />
      </td>
    </tr>
  );
}

function Bar({ list, scale, offset = 0 }: { list: Phase[]; scale: number; offset?: number }) {
  const share = (value: number) => `${Math.max(0, Math.min(100, (value / scale) * 100))}%`;
  return (
    <span class="bar-line" aria-hidden="true">
      {list.map((phase) => (
        <span
          key={phase.kind}
          class={`phase ${phase.kind}`}
          style={{ left: share(phase.from + offset), width: share(Math.min(phase.to + offset, scale) - Math.max(phase.from + offset, 0)) }}
        />
      ))}
    </span>
  );
}

export function Details() {
  const one = chosen.value === null ? undefined : byNumber.value.get(chosen.value);
  const now = shot.value!.now.time;
  if (!one) return <section class="card details"><h2>{t('whySlow')}</h2><p class="muted">{t('selectRequest')}</p></section>;
  const list = phases(one, now);
  const whole = Math.max(list[list.length - 1]?.to ?? 0, 0.0001);
  const decode = (one.ended_s ?? 0) - (one.first_token_s ?? 0);
  const tokens = one.generated_tokens ?? 0;
  const others = [...new Set((one.reasons ?? []).flatMap((reason) => reason.by))].map((n) => byNumber.value.get(n)).filter((o) => o !== undefined);
  return (
    <section class="card details" aria-label={t('whySlow')}>
      <h2>
        {t('whySlow')} <span class="muted">#{one.number} · {one.route} · {outcome(one)}</span>
      </h2>
      <div class="big-bar"><Bar list={list} scale={whole} /></div>
      <ul class="phase-list">
        {list.filter((phase) => phase.to - phase.from > 0 || phase.kind === 'decode').map((phase) => (
          <li key={phase.kind}>
            <i class={`key phase ${phase.kind}`} /> {t(phase.name)} <b>{seconds(phase.to - phase.from)}</b>
          </li>
        ))}
      </ul>
      {others.length > 0 && (
        <div class="neighbours">
          {[one, ...others.slice(0, 8)].map((other) => (
            <div key={other.number} class="neighbour">
              <button type="button" class="link" onClick={() => (chosen.value = other.number)}>#{other.number}</button>
              <Bar list={phases(other, now)} scale={whole} offset={other.arrived_at - one.arrived_at} />
            </div>
          ))}
        </div>
      )}
      <ul class="reasons">
        {(one.reasons ?? []).map((reason) => <li key={reason.kind}>{sentence(reason)}</li>)}
        {one.outcome === 'ok' && one.reasons?.length === 0 && <li>{t('r_none')}</li>}
        {!!one.prompt_tokens && <li class="muted">{t('cachedOf', { cached: number(one.cached_tokens ?? 0), n: number(one.prompt_tokens) })}</li>}
        {tokens > 1 && decode > 0 && <li class="muted">{t('rate', { n: number((tokens - 1) / decode, 1) })}</li>}
        {one.message && <li class="error">{one.message}</li>}
      </ul>
    </section>
  );
}

function sentence(reason: Reason): string {
  const names = reason.by.map((n) => `#${n}`).join(', ');
  const more = reason.others > reason.by.length ? t('andMore', { n: reason.others - reason.by.length }) : '';
  const by = names ? t('byOthers', { names: names + more }) : '';
  return t(`r_${reason.kind}` as Key, { s: seconds(reason.seconds), by });
}

export function Errors() {
  const errors = shot.value!.errors;
  return (
    <section class="card" aria-label={t('errors')}>
      <h2>{t('errors')}</h2>
      {!errors.length && <p class="muted">{t('noErrors')}</p>}
      <ul class="error-list">
        {errors.slice(0, 12).map((one) => (
          <li key={one.number}>
            <button type="button" class="link" onClick={() => (chosen.value = one.number)}>#{one.number}</button>
            <span class="muted">{clock(one.arrived_at)}</span>
            <span class="tag bad">{one.outcome}</span>
            <span class="error-text">{one.message || (one.yours ? '' : t('otherKey'))}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
