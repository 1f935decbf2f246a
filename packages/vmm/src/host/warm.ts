/** A template's guest before it is frozen: everything that clones need first has run once, and nothing is unwritten. */
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentClient } from '@instavm/agent-client';
import type { BuildProgress } from '@instavm/core';

const WARM_DEADLINE_MS = 180_000;

/**
 * @param control ends with it
 * @param settleMs until the guest has seen the hang-up; it must have before it is frozen, or every clone would first have to notice it
 */
export async function warmGuest(control: Duplex, settleMs: number, progress: BuildProgress): Promise<void> {
  const agent = await AgentClient.open(control, WARM_DEADLINE_MS);
  try {
    await agent.lifecycle.ping({}, { timeoutMs: WARM_DEADLINE_MS });
    progress('warming the shell and the Python kernel');
    await agent.lifecycle.warm({}, { timeoutMs: WARM_DEADLINE_MS });
    await agent.lifecycle.sync({}, { timeoutMs: WARM_DEADLINE_MS });
  } finally {
    agent.close();
    await agent.closed;
  }
  await sleep(settleMs);
}
