/** The live page: what runs, how fast, where the memory goes, and why a request was slow. */
import { useEffect } from 'preact/hooks';
import { compact, number, seconds } from '../lib/format';
import { t } from '../lib/i18n';
import { info, modelName, shortName } from '../state/server';
import { Icon } from '../ui/icons';
import { IconButton } from '../ui/kit';
import { KeyAsker, PageButtons } from '../ui/TopBar';
import { Chart } from './Charts';
import { SHOWN_SECONDS, latencies, paused, problem, quantile, recent, shot, sum, watch, type Snapshot } from './data';
import { Memory } from './Memory';
import { Details, Errors, Requests } from './Requests';

export function Dashboard() {
  useEffect(watch, []);
  const now = shot.value;
  return (
    <div class="dash">
      <Top now={now} />
      <main>
        {problem.value && (
          <p class="banner" role="alert">
            <Icon name="warn" /> {problem.value === 'unreachable' ? t('serverDown') : problem.value}
          </p>
        )}
        {now && (
          <div class="dash-grid">
            <Tiles now={now} />
            <ChartRow now={now} />
            <Requests />
            <Details />
            {info.value && <Memory plan={info.value.runtime.memory} />}
            <Errors />
          </div>
        )}
      </main>
      <KeyAsker />
    </div>
  );
}

function Top({ now }: { now: Snapshot | null }) {
  const told = info.value;
  const state = problem.value ? 'unreachable' : now?.now.healthy === false ? 'unhealthy' : 'healthy';
  return (
    <header class="dash-top">
      <a class="back" href="./"><Icon name="left" /> {t('playground')}</a>
      <div class="model">
        <strong>{shortName(modelName.value)}</strong>
        {told && <span>{compact(told.runtime.parameters)} · {told.runtime.quantize ?? told.runtime.dtype} · {told.runtime.device}</span>}
      </div>
      {now && (
        <span class={`health ${state}`} role="status">
          <i /> {t(state)} <span class="muted">· {t('uptime', { time: seconds(Math.max(1, Math.round(now.now.uptime_s))) })}</span>
        </span>
      )}
      <span class="grow" />
      <IconButton icon={paused.value ? 'play' : 'pause'} label={t(paused.value ? 'resume' : 'pause')} pressed={paused.value} onClick={() => (paused.value = !paused.value)} />
      <PageButtons />
    </header>
  );
}

interface TileProps {
  name: string;
  value: string;
  note?: string;
  share?: number;
}

function Tile({ name, value, note, share }: TileProps) {
  return (
    <div class="tile">
      <dt>{name}</dt>
      <dd>
        {value}
        {note && <small>{note}</small>}
        {share !== undefined && <span class="meter"><span style={{ width: `${Math.min(100, share * 100)}%` }} /></span>}
      </dd>
    </div>
  );
}

function Tiles({ now: all }: { now: Snapshot }) {
  const { now, seconds: series } = all;
  const { ttft, itl } = latencies(all);
  const used = now.num_blocks ? 1 - now.free_blocks / now.num_blocks : 0;
  const asked = sum(series.query_tokens);
  const hits = asked ? sum(series.hit_tokens) / asked : null;
  const percent = (share: number) => `${number(share * 100, share < 0.1 && share > 0 ? 1 : 0)}%`;
  const p = (points: typeof ttft, q: number) => {
    const value = quantile(points, q);
    return value === null ? '–' : seconds(value);
  };
  return (
    <dl class="tiles">
      <Tile name={t('running')} value={number(now.running)} note={t('ofBatch', { n: number(now.batch) })} />
      <Tile name={t('queued')} value={number(now.waiting + now.in_line)} note={now.in_line ? t('inLine', { n: now.in_line }) : undefined} />
      <Tile name={t('decodeRate')} value={number(recent(series.decode_tokens))} note={t('tokensASecond')} />
      <Tile name={t('prefillRate')} value={number(recent(series.prefill_tokens))} note={t('tokensASecond')} />
      <Tile name={t('ttft')} value={p(ttft, 0.5)} note={ttft.length ? `p95 ${p(ttft, 0.95)}` : t('median')} />
      <Tile name={t('itl')} value={p(itl, 0.5)} note={itl.length ? `p95 ${p(itl, 0.95)}` : t('median')} />
      <Tile name={t('cacheUse')} value={percent(used)} share={used} />
      <Tile name={t('prefixHits')} value={hits === null ? '–' : percent(hits)} note={t('hitsHelp')} />
    </dl>
  );
}

function ChartRow({ now }: { now: Snapshot }) {
  const s = now.seconds;
  const { ttft, itl } = latencies(now);
  const blocks = now.now.num_blocks || 1;
  const whole = (value: number) => number(value);
  const percent = (value: number) => `${number(value)}%`;
  const minutes = t('lastMinutes', { n: SHOWN_SECONDS / 60 });
  return (
    <div class="charts" aria-label={minutes}>
      <Chart title={t('tokensPerSecond')} format={whole} least={10} lines={[
        { name: t('prefillRate'), values: s.prefill_tokens, colour: 3, area: true },
        { name: t('decodeRate'), values: s.decode_tokens, colour: 1, area: true },
      ]} />
      <Chart title={t('requestCount')} format={whole} least={4} lines={[
        { name: t('running'), values: s.running, colour: 1, area: true },
        { name: t('queued'), values: s.waiting, colour: 2 },
      ]} />
      <Chart title={t('ttft')} format={seconds} least={0.05} points={[{ name: t('ttft'), points: ttft, colour: 3 }]} />
      <Chart title={t('itl')} format={seconds} least={0.01} points={[{ name: t('itl'), points: itl, colour: 4 }]} />
      <Chart title={t('cacheUse')} format={percent} most={100} lines={[
        { name: t('cacheUse'), values: s.free_blocks.map((free) => (1 - free / blocks) * 100), colour: 1, area: true },
      ]} />
      <Chart title={t('busy')} format={percent} most={100} lines={[
        { name: t('busy'), values: s.busy_s.map((busy) => Math.min(100, busy * 100)), colour: 2, area: true },
      ]} />
    </div>
  );
}
