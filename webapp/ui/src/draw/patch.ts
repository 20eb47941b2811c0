// Patching a pool of rows: a text node, class or transform is touched only when it changed.

export class Cell {
  #text = '';
  readonly #node: Text;

  constructor(readonly element: HTMLElement) {
    this.#node = document.createTextNode('');
    element.append(this.#node);
  }

  set text(text: string) {
    if (text === this.#text) return;
    this.#text = text;
    this.#node.data = text;
  }
}

export class Bar {
  #share = -1;

  constructor(readonly element: HTMLElement) {}

  set share(share: number) {
    const rounded = Math.round(share * 500) / 500;
    if (rounded === this.#share) return;
    this.#share = rounded;
    this.element.style.transform = `scaleX(${rounded})`;
  }
}

/** Sets or removes an attribute, only when it changes. */
export class Mark {
  #value: string | null = null;

  constructor(
    readonly element: HTMLElement,
    readonly name: string,
  ) {}

  set value(value: string | null) {
    if (value === this.#value) return;
    this.#value = value;
    if (value === null) this.element.removeAttribute(this.name);
    else this.element.setAttribute(this.name, value);
  }
}

export function create<Tag extends keyof HTMLElementTagNameMap>(tag: Tag, className = ''): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  return element;
}
