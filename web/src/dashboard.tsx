import './styles/base.css';
import './lib/prefs';
import { render } from 'preact';
render(<p>…</p>, document.getElementById('app')!);
