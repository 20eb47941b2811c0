// What a person chose about the page, kept in this browser.

import { effect, signal } from '@preact/signals';

export interface Settings {
  theme: 'system' | 'dark' | 'light';
  palette: 'classic' | 'blue-orange';
  clock: 'utc' | 'local';
  confirm: boolean;
  interval: string;
  /** Whether a person chose it: until then a market with a short history is shown by the second. */
  intervalChosen: boolean;
  market: string;
}

const KEY = 'zx.settings';
const DEFAULTS: Settings = { theme: 'system', palette: 'classic', clock: 'utc', confirm: true, interval: '1m', intervalChosen: false, market: '' };

function load(): Settings {
  try {
    const kept = { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<Settings>) };
    return kept.intervalChosen ? kept : { ...kept, interval: DEFAULTS.interval };
  } catch {
    return DEFAULTS;
  }
}

export const settings = signal<Settings>(load());

export function choose(change: Partial<Settings>): void {
  settings.value = { ...settings.value, ...change };
}

const dark = matchMedia('(prefers-color-scheme: dark)');
const systemDark = signal(dark.matches);
dark.addEventListener('change', () => (systemDark.value = dark.matches));

/** The theme that is shown. */
export function shownTheme(): 'dark' | 'light' {
  const { theme } = settings.value;
  return theme === 'system' ? (systemDark.value ? 'dark' : 'light') : theme;
}

/** Grows when colours change, so that charts read them again. */
export const looks = signal(0);

effect(() => {
  const root = document.documentElement;
  root.dataset.theme = shownTheme();
  root.dataset.palette = settings.value.palette;
  localStorage.setItem(KEY, JSON.stringify(settings.value));
  looks.value = looks.peek() + 1;
});
