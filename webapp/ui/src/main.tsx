import { render } from 'preact';
import './style/tokens.css';
import './style/parts.css';
import './style/panels.css';
import './style/layout.css';
import { boot } from './state/controller';
import { App } from './views/App';
import { listenForKeys } from './views/keyboard';

render(<App />, document.getElementById('app')!);
listenForKeys();
void boot();
