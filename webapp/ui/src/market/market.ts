// A market in integers, and the arithmetic of an order: the same formulas as section 1 of docs/rules.md.
//
//   quote units = ticks * lots * quoteUnitsPerTickLot         fee = ceil(quote units * ppm / 1,000,000)

import { ceilDiv, decimalsOf, formatUnits, parseDecimal } from './decimal';

/** As GET /markets serves it. */
export interface MarketInfo {
  market_id: number;
  symbol: string;
  shard: number;
  base_asset_id: number;
  quote_asset_id: number;
  base: string;
  quote: string;
  base_decimals: number;
  quote_decimals: number;
  tick_size: string;
  lot_size: string;
  maker_fee_ppm: number;
  taker_fee_ppm: number;
  /** How often tick and lot size have changed. */
  sizes_no?: number;
  state: string;
  /** Limits of an order; empty or 0 where there is none. */
  max_qty?: string;
  max_notional?: string;
  max_open_orders?: number;
  /** How far a trade may be from the last one, and from the reference price. */
  dynamic_band_ppm?: number;
  static_band_ppm?: number;
}

export const INTEGER_MAX = 2n ** 53n - 1n;
const AMOUNT_MAX = 2n ** 63n - 1n;
const PPM = 1_000_000n;

export type Side = 'buy' | 'sell';

export class Market {
  readonly priceDecimals: number;
  readonly sizeDecimals: number;
  readonly #tick: bigint;
  readonly #lot: bigint;
  readonly baseUnitsPerLot: bigint;
  readonly quoteUnitsPerTickLot: bigint;

  constructor(readonly info: MarketInfo) {
    this.priceDecimals = decimalsOf(info.tick_size);
    this.sizeDecimals = decimalsOf(info.lot_size);
    const tick = parseDecimal(info.tick_size, this.priceDecimals);
    const lot = parseDecimal(info.lot_size, this.sizeDecimals);
    if (!tick || !lot) throw new RangeError(`${info.symbol}: tick or lot size`);
    this.#tick = tick;
    this.#lot = lot;
    this.baseUnitsPerLot = lot * 10n ** BigInt(info.base_decimals - this.sizeDecimals);
    const scale = info.quote_decimals - this.priceDecimals - this.sizeDecimals;
    this.quoteUnitsPerTickLot = scale >= 0 ? tick * lot * 10n ** BigInt(scale) : (tick * lot) / 10n ** BigInt(-scale);
  }

  get symbol(): string {
    return this.info.symbol;
  }

  /** Of which tick and lot size the numbers of a command count: the exchange refuses one that was made for others. */
  get sizesNo(): number {
    return (this.info.sizes_no ?? 0) % 256;
  }

  /** Of one order, in lots and in quote units; 0 if there is no limit. */
  get lotsMax(): bigint {
    return this.lotsOf(this.info.max_qty || '0');
  }

  get notionalMax(): bigint {
    return parseDecimal(this.info.max_notional || '0', this.info.quote_decimals) ?? 0n;
  }

  get openOrdersMax(): number {
    return this.info.max_open_orders ?? 0;
  }

  /** No more lots than an order may have. */
  cappedLots(lots: bigint): bigint {
    const most = this.lotsMax || INTEGER_MAX;
    return lots < most ? lots : most;
  }

  priceText(ticks: bigint): string {
    return formatUnits(ticks * this.#tick, this.priceDecimals);
  }

  sizeText(lots: bigint): string {
    return formatUnits(lots * this.#lot, this.sizeDecimals);
  }

  quoteText(units: bigint, shown = this.info.quote_decimals): string {
    return formatUnits(units, this.info.quote_decimals, shown);
  }

  /** Ticks of a price as the server writes it. */
  ticksOf(price: string): bigint {
    return (parseDecimal(price, this.priceDecimals) ?? 0n) / this.#tick;
  }

  lotsOf(size: string): bigint {
    return (parseDecimal(size, this.sizeDecimals) ?? 0n) / this.#lot;
  }

  /** A price as somebody typed it: ticks, or what is wrong with it in words. */
  readPrice(text: string): { ticks: bigint } | { problem: string } {
    const units = parseDecimal(text, 18);
    if (units === null) return { problem: text.trim() ? 'Enter a number.' : 'Enter a price.' };
    const step = this.#tick * 10n ** BigInt(18 - this.priceDecimals);
    if (units % step) {
      const below = units / step;
      return { problem: `Prices move in steps of ${this.info.tick_size} ${this.info.quote}: ${this.priceText(below)} or ${this.priceText(below + 1n)}.` };
    }
    const ticks = units / step;
    if (ticks < 1n || ticks > INTEGER_MAX) return { problem: `The price must be between ${this.priceText(1n)} and ${this.priceText(INTEGER_MAX)}.` };
    return { ticks };
  }

  /** A size in the base asset as somebody typed it. */
  readSize(text: string): { lots: bigint } | { problem: string } {
    const units = parseDecimal(text, 18);
    if (units === null) return { problem: text.trim() ? 'Enter a number.' : 'Enter a size.' };
    const step = this.#lot * 10n ** BigInt(18 - this.sizeDecimals);
    if (units % step) {
      const below = units / step;
      const nearest = below > 0n ? `${this.sizeText(below)} or ${this.sizeText(below + 1n)}` : this.sizeText(1n);
      return { problem: `Sizes move in steps of ${this.info.lot_size} ${this.info.base}: ${nearest}.` };
    }
    const lots = units / step;
    if (lots < 1n || lots > INTEGER_MAX) return { problem: `The smallest size is ${this.info.lot_size} ${this.info.base}.` };
    return { lots };
  }

  /** A size in the quote asset, and the lots that it buys at `ticks`, rounded down. */
  readQuoteSize(text: string, ticks: bigint): { lots: bigint; units: bigint } | { problem: string } {
    const units = parseDecimal(text, this.info.quote_decimals);
    if (units === null) return { problem: text.trim() ? `At most ${this.info.quote_decimals} decimals of ${this.info.quote}.` : 'Enter an amount.' };
    const lots = units / (ticks * this.quoteUnitsPerTickLot);
    if (lots < 1n) return { problem: `One lot costs ${this.quoteText(ticks * this.quoteUnitsPerTickLot)} ${this.info.quote} at this price.` };
    return { lots, units };
  }

  notional(ticks: bigint, lots: bigint): bigint {
    return ticks * lots * this.quoteUnitsPerTickLot;
  }

  fee(ticks: bigint, lots: bigint, ppm: number): bigint {
    return ceilDiv(this.notional(ticks, lots) * BigInt(ppm), PPM);
  }

  /** Quote units that one lot of a buy order at `ticks` holds, the worst fee included. */
  unitHold(ticks: bigint): bigint {
    const units = ticks * this.quoteUnitsPerTickLot;
    const worst = BigInt(Math.max(this.info.maker_fee_ppm, this.info.taker_fee_ppm));
    return units + ceilDiv(units * worst, PPM);
  }

  /** What an order holds, in base units of the asset it spends. */
  hold(side: Side, ticks: bigint, lots: bigint): bigint {
    return side === 'buy' ? lots * this.unitHold(ticks) : lots * this.baseUnitsPerLot;
  }

  /** The most lots that `available` units of the asset to be spent pay for. */
  affordableLots(side: Side, ticks: bigint, available: bigint): bigint {
    const each = side === 'buy' ? this.unitHold(ticks) : this.baseUnitsPerLot;
    return each > 0n ? available / each : 0n;
  }

  overflows(side: Side, ticks: bigint, lots: bigint): boolean {
    return this.hold(side, ticks, lots) > AMOUNT_MAX || this.notional(ticks, lots) > AMOUNT_MAX;
  }
}
