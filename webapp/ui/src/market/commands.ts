// What is sent: the commands of a draft without problems, and what they do in words. Fetched with order entry.

import type { Command, OrderOptions } from '../wire/messages';
import { grouped } from './decimal';
import { hasLimit, mayPost, stays, tifOf, triggerOf, waitsAbove } from './draft';
import type { Assessment, Draft } from './draft';
import type { Market } from './market';

export const NO_COMMAND: Command = {
  kind: 'cancel', side: 'none', orderType: 'none', timeInForce: 'none', selfTradePrevention: 'none', options: [], trigger: 'none', sizesNo: 0, marketId: 0,
  clientOrderId: 0n, orderId: 0n, priceTicks: 0n, qtyLots: 0n, displayQtyLots: 0n, minQtyLots: 0n, triggerTicks: 0n, trailPpm: 0, expireTimeNs: 0n, maxNotional: 0n,
};

/** The commands of a draft without problems: one, or the two of a pair, each with its own number. */
export function commandsOf(draft: Draft, found: Assessment, market: Market, newId: () => bigint): Command[] {
  const options: OrderOptions[] = [];
  if (draft.postOnly && mayPost(draft)) options.push('postOnly', ...(draft.slide ? (['slide'] as const) : []));
  if (draft.hidden && hasLimit(draft) && stays(draft)) options.push('hidden');
  if (draft.onReference && triggerOf(draft) !== 'none') options.push('onReference');
  const first: Command = {
    ...NO_COMMAND, kind: 'new', side: draft.side, orderType: hasLimit(draft) ? 'limit' : 'market', timeInForce: tifOf(draft), selfTradePrevention: draft.selfTrade, options,
    trigger: triggerOf(draft), sizesNo: market.sizesNo, marketId: market.info.market_id, clientOrderId: newId(), priceTicks: found.ticks!, qtyLots: found.lots!, displayQtyLots: found.displayLots,
    minQtyLots: found.minLots, triggerTicks: found.triggerTicks, trailPpm: found.trailPpm, expireTimeNs: found.expireNs, maxNotional: found.maxNotional,
  };
  if (!found.pair) return [first];
  const second: Command = {
    ...NO_COMMAND, kind: 'new', side: draft.side, orderType: 'market', timeInForce: 'ioc', selfTradePrevention: draft.selfTrade, options: ['ocoWithPrevious'], trigger: 'stop',
    sizesNo: market.sizesNo, marketId: market.info.market_id, clientOrderId: newId(), priceTicks: found.pair.ticks, qtyLots: found.lots!, triggerTicks: found.pair.triggerTicks,
  };
  return [first, second];
}

/** What a draft without problems does, in a sentence. */
export function summaryOf(draft: Draft, found: Assessment, market: Market): string {
  const { info } = market;
  const price = (ticks: bigint) => grouped(market.priceText(ticks));
  const what = `${draft.side === 'buy' ? 'Buy' : 'Sell'} ${found.maxNotional ? `for at most ${grouped(market.quoteText(found.maxNotional, 2))} ${info.quote}` : `${market.sizeText(found.lots!)} ${info.base}`}`;
  const at = hasLimit(draft) ? `at ${price(found.ticks!)}` : `at market, worst price ${price(found.ticks!)}`;
  const trigger = triggerOf(draft);
  if (found.pair) return `${what} ${at}, or at market once the price ${draft.side === 'buy' ? 'rises' : 'falls'} to ${price(found.pair.triggerTicks)}`;
  if (trigger === 'none') return `${what} ${at}`;
  if (trigger === 'trailing') {
    const far = draft.trailUnit === 'percent' ? `${draft.trail.trim()} %` : `${price(found.triggerTicks)} ${info.quote}`;
    return `${what} at market once the price ${draft.side === 'buy' ? `rises ${far} from its lowest` : `falls ${far} from its highest`}`;
  }
  return `${what} ${at}, once the price ${waitsAbove(trigger, draft.side) ? 'rises' : 'falls'} to ${price(found.triggerTicks)}`;
}
