// SPDX-License-Identifier: Apache-2.0
// Puts the dashboard on the page.
import { createRoot } from 'react-dom/client';
import { App } from './app.tsx';
import './styles/theme.css';
import './styles/shell.css';
import './styles/panel.css';
import './styles/map.css';
import './styles/trace.css';

const root = document.getElementById('root');
if (!root) throw new Error('index.html has lost its #root');
createRoot(root).render(<App />);
