/** Runs scripts in the guest of a microVM that nobody holds. */
import { AgentClient } from '@instavm/agent-client';
import type { MicroVm } from '@instavm/core';

const ATTACH_MS = 60_000;

/** @returns what the script wrote */
export async function shell(vm: MicroVm, value: string): Promise<string> {
  const agent = await AgentClient.open(await vm.connect('control'), ATTACH_MS);
  async function* script() {
    yield { message: { case: 'start', value: { command: { case: 'script', value } } } } as const;
  }
  let text = '';
  for await (const { event } of agent.exec.run(script()))
    if (event.case === 'stdout' || event.case === 'stderr') text += Buffer.from(event.value).toString();
  agent.close();
  await agent.closed;
  return text.trim();
}
