// What the first load and order entry share: the connections, and what is to be told to order entry once it is there.

import { Api } from '../net/api';
import type { Feed, FeedMessage } from '../net/feed';

export const api = new Api();
export const socketBase = location.origin.replace(/^http/, 'ws');

export const links = {
  feed: null as Feed | null,
  /** Of the feed's last hello; null while it is not connected. */
  challenge: null as string | null,
  /** Whether the feed tells of the own account. */
  isPrivate: false,
};

/** What is not fetched before there is a key. */
export type Entry = typeof import('./entry');
export type PrivateMessage = FeedMessage;
