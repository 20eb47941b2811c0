// How much is in front of an own order.

/**
 * Quantity in front of an own order at its price, in lots: an estimate. What the level held when the order was first seen
 * there, less what has left it since; never more than the level without the order itself.
 */
export class QueueEstimate {
  #ahead = new Map<string, { ticks: number; ahead: number }>();

  estimate(orderId: string, ticks: number, ownLots: number, levelLots: number): number {
    const others = Math.max(0, levelLots - ownLots);
    const known = this.#ahead.get(orderId);
    const ahead = known && known.ticks === ticks ? Math.min(known.ahead, others) : others;
    this.#ahead.set(orderId, { ticks, ahead });
    return ahead;
  }

  keep(orderIds: ReadonlySet<string>): void {
    for (const id of this.#ahead.keys()) if (!orderIds.has(id)) this.#ahead.delete(id);
  }
}
