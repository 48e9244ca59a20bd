import './styles/base.css';
import './styles/app.css';
import './styles/content.css';
import './lib/prefs';
import { render } from 'preact';
import { loadChats } from './state/chats';
import { askServer } from './state/server';
import { App } from './ui/App';
import { coming } from './ui/MarkdownText';

render(<App />, document.getElementById('app')!);
void askServer();
void loadChats();
setTimeout(coming, 300);
