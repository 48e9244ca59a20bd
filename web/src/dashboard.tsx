import './styles/base.css';
import './styles/dash.css';
import './lib/prefs';
import { effect } from '@preact/signals';
import { render } from 'preact';
import { Dashboard } from './dash/Dashboard';
import { t } from './lib/i18n';
import { askServer, modelName, shortName } from './state/server';

render(<Dashboard />, document.getElementById('app')!);
void askServer();
effect(() => {
  document.title = [shortName(modelName.value), t('dashboard')].filter(Boolean).join(' · ');
});
