// Decimals as integers. Money never becomes a float: a decimal string is a bigint in units of its last place.

/** `text` in units of 10^-decimals; null if it is no plain decimal or has more decimals than that. */
export function parseDecimal(text: string, decimals: number): bigint | null {
  const match = /^(\d*)(?:\.(\d*))?$/.exec(text.trim());
  if (!match || (!match[1] && !match[2])) return null;
  const fraction = (match[2] ?? '').replace(/0+$/, '');
  if (fraction.length > decimals) return null;
  return BigInt((match[1] || '0') + fraction.padEnd(decimals, '0'));
}

/** Decimals that a decimal string writes, without trailing zeros. */
export function decimalsOf(text: string): number {
  const dot = text.indexOf('.');
  return dot < 0 ? 0 : text.slice(dot + 1).replace(/0+$/, '').length;
}

/** `units` of 10^-decimals as a decimal string with exactly `shown` decimals, cut and not rounded. */
export function formatUnits(units: bigint, decimals: number, shown = decimals): string {
  const sign = units < 0n ? '-' : '';
  const digits = (units < 0n ? -units : units).toString().padStart(decimals + 1, '0');
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = digits.slice(digits.length - decimals).padEnd(shown, '0').slice(0, shown);
  return sign + whole + (shown ? '.' + fraction : '');
}

/** As `formatUnits`, without trailing zeros. */
export function formatExact(units: bigint, decimals: number): string {
  const text = formatUnits(units, decimals);
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** Commas between groups of three digits of the whole part. */
export function grouped(text: string): string {
  const dot = text.indexOf('.');
  const whole = dot < 0 ? text : text.slice(0, dot);
  return whole.replace(/\B(?=(\d{3})+(?!\d))/g, ',') + (dot < 0 ? '' : text.slice(dot));
}

export function ceilDiv(dividend: bigint, divisor: bigint): bigint {
  return (dividend + divisor - 1n) / divisor;
}

export function floorTo(value: bigint, step: bigint): bigint {
  return (value / step) * step;
}

/** 2,500,000 as "2.5M": for figures that are read, not traded on. */
export function compact(text: string): string {
  const value = Number(text);
  if (!Number.isFinite(value)) return '–';
  for (const [limit, unit] of [[1e12, 'T'], [1e9, 'B'], [1e6, 'M'], [1e4, 'K']] as const)
    if (Math.abs(value) >= limit) return (value / (unit === 'K' ? 1e3 : limit)).toFixed(2) + unit;
  return value.toLocaleString('en-US', { maximumFractionDigits: 2 });
}

/** Mean price of (ticks, lots), weighed and rounded to a tick; 0 of nothing. */
export function meanTicks(fills: readonly (readonly [ticks: bigint, lots: bigint])[]): bigint {
  const lots = fills.reduce((sum, [, one]) => sum + one, 0n);
  return lots ? (fills.reduce((sum, [ticks, one]) => sum + ticks * one, 0n) + lots / 2n) / lots : 0n;
}
