/** A stream of the server that goes on for as long as the page is open, also over lost connections. */
import { useEffect, useState } from 'react';

const RETRY_MS = 2_000;

/**
 * @param follow takes up where it was; calls `live` when it is up to date. Another function begins anew
 * @returns whether it is up to date now
 */
export function useFollowing(follow: (signal: AbortSignal, live: () => void) => Promise<void>): boolean {
  const [isLive, setLive] = useState(false);
  useEffect(() => {
    const stop = new AbortController();
    const run = async (): Promise<void> => {
      while (!stop.signal.aborted) {
        await follow(stop.signal, () => setLive(true)).catch(() => {});
        setLive(false);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    };
    void run();
    return () => stop.abort();
  }, [follow]);
  return isLive;
}
