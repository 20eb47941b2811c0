// Small parts that several views share.

import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

/** A modal dialog: the browser traps focus, closes on Escape and gives the focus back. */
export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean }) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = ref.current!;
    if (!dialog.open) dialog.showModal();
    return () => dialog.close();
  }, []);
  return (
    <dialog
      ref={ref}
      class={props.wide ? 'wide' : ''}
      aria-label={props.title}
      onCancel={(event) => {
        event.preventDefault();
        props.onClose();
      }}
      onMouseDown={(event) => {
        if (event.target === ref.current) props.onClose();
      }}
    >
      <div class="dialog-body">
        <header>
          <h2>{props.title}</h2>
          <button class="quiet" type="button" aria-label="Close" onClick={props.onClose}>
            ✕
          </button>
        </header>
        {props.children}
      </div>
    </dialog>
  );
}

/** One of several choices, as a row of buttons. */
export function Segments<Value extends string>(props: {
  label: string;
  value: Value;
  choices: readonly (readonly [Value, string])[];
  onChoose: (value: Value) => void;
  class?: string;
}) {
  return (
    <div class={`segments ${props.class ?? ''}`} role="group" aria-label={props.label}>
      {props.choices.map(([value, text]) => (
        <button key={value} type="button" data-value={value} aria-pressed={value === props.value} onClick={() => props.onChoose(value)}>
          {text}
        </button>
      ))}
    </div>
  );
}

export interface Column<Row> {
  readonly name: string;
  readonly number?: boolean;
  /** Left out where there is no room for it. */
  readonly minor?: boolean;
  /** In two lines where there is no room for one. */
  readonly wraps?: boolean;
  /** At the right edge also when the table is wider than its panel. */
  readonly stays?: boolean;
  readonly cell: (row: Row) => ComponentChildren;
}

const classOf = <Row,>(column: Column<Row>): string => (['number', 'minor', 'wraps', 'stays'] as const).filter((name) => column[name]).join(' ');

/** A real table with a caption for those who do not see the tab it is in. */
export function Table<Row>(props: { caption: string; columns: readonly Column<Row>[]; rows: readonly Row[]; rowKey: (row: Row) => string; empty: string }) {
  if (!props.rows.length) return <p class="empty">{props.empty}</p>;
  return (
      <table class="data">
        <caption class="unseen">{props.caption}</caption>
        <thead>
          <tr>
            {props.columns.map((column) => (
              <th key={column.name} scope="col" class={classOf(column)}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row) => (
            <tr key={props.rowKey(row)}>
              {props.columns.map((column) => (
                <td key={column.name} class={classOf(column)}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
  );
}

/** Side, by word, arrow and colour. */
export function SideMark(props: { side: 'buy' | 'sell' }) {
  return (
    <span class={props.side}>
      {props.side === 'buy' ? '▲ Buy' : '▼ Sell'}
    </span>
  );
}

/** Hex or base64 in a box that can be scrolled and copied. */
export function Bytes(props: { label: string; text: string }) {
  return (
    <div class="bytes">
      <span>{props.label}</span>
      <code tabIndex={0} role="textbox" aria-readonly="true" aria-label={props.label}>
        {props.text}
      </code>
    </div>
  );
}

/** Offers text as a file. */
export function download(name: string, text: string, type: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

/** RFC 4180; a cell that a spreadsheet would take for a formula is quoted with an apostrophe. */
export function csv(rows: readonly (readonly string[])[]): string {
  const cell = (text: string): string => {
    const safe = /^[=+@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  return rows.map((row) => row.map(cell).join(',')).join('\r\n') + '\r\n';
}
