// Parts of the page that are fetched when they are first shown, so that the first load stays small.

import { signal } from '@preact/signals';
import type { ComponentType } from 'preact';

/** A component without properties; what cannot be fetched is asked for again when it is next shown. */
export function lazy(load: () => Promise<ComponentType>): ComponentType & { fetch(): void } {
  const loaded = signal<ComponentType | null>(null);
  let asked = false;
  const fetch = (): void => {
    if (asked) return;
    asked = true;
    load().then(
      (component) => (loaded.value = component),
      () => (asked = false),
    );
  };
  const Lazy = () => {
    const Component = loaded.value;
    if (Component) return <Component />;
    fetch();
    return null;
  };
  return Object.assign(Lazy, { fetch });
}
