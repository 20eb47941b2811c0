// What changes thousands of times a second: the book, the tape, the last price. Plain objects, drawn by draw/loop.ts once a
// frame; nothing here goes through a signal.

import { Book } from '../market/book';
import type { Market } from '../market/market';
import type { Candle, Ticker, Trade } from '../net/api';

export const TAPE_LENGTH = 100;
const CANDLES_MAX = 5000;

class Live {
  market: Market | null = null;
  book = new Book('1', '1');
  /** Newest first. */
  tape: Trade[] = [];
  tapeVersion = 0;
  ticker: Ticker | null = null;
  tickerVersion = 0;
  candles: Candle[] = [];
  /** Grows when the whole series changed, not for the live bar. */
  candlesEpoch = 0;
  candlesVersion = 0;
  /** Server's clock less this machine's, in milliseconds. */
  clockOffsetMs = 0;
  bookMessages = 0;
  resyncs = 0;

  select(market: Market): void {
    this.market = market;
    this.book = new Book(market.info.tick_size, market.info.lot_size);
    this.tape = [];
    this.tapeVersion += 1;
    this.candles = [];
    this.candlesEpoch += 1;
    this.ticker = null;
    this.tickerVersion += 1;
  }

  addTrades(trades: readonly Trade[], replace: boolean): void {
    const newestFirst = [...trades].sort((left, right) => (BigInt(right.trade_id) > BigInt(left.trade_id) ? 1 : -1));
    this.tape = (replace ? newestFirst : [...newestFirst, ...this.tape]).slice(0, TAPE_LENGTH);
    this.tapeVersion += 1;
  }

  addCandles(candles: readonly Candle[], replace: boolean): void {
    if (replace) {
      this.candles = [...candles];
      this.candlesEpoch += 1;
    } else
      for (const candle of candles) {
        const at = this.candles.findLastIndex((one) => one.time <= candle.time);
        if (at >= 0 && this.candles[at]!.time === candle.time) this.candles[at] = candle;
        else this.candles.splice(at + 1, 0, candle);
      }
    if (this.candles.length > CANDLES_MAX) {
      this.candles.splice(0, this.candles.length - CANDLES_MAX / 2);
      this.candlesEpoch += 1;
    }
    this.candlesVersion += 1;
  }

  nowMs(): number {
    return Date.now() + this.clockOffsetMs;
  }
}

export const live = new Live();
