/** The announcement's example: an agent looks for outliers in a file that lives in its own microVM. */
import { run } from '@openai/agents';
import { file, Manifest, SandboxAgent } from '@openai/agents/sandbox';
import { InstaVMSandboxClient } from 'instavm/openai-agents';

const agent = new SandboxAgent({
  name: 'Data analyst',
  model: 'gpt-4.1',
  instructions: 'Inspect sales.csv and summarize the outliers.',
  defaultManifest: new Manifest({
    entries: { 'sales.csv': file({ content: 'region,revenue\nus,120\nin,980\nuk,140\n' }) },
  }),
});

// The address and the key of the service come from INSTAVM_BASE_URL and INSTAVM_API_KEY.
const result = await run(agent, 'Analyze the dataset and explain what stands out.', {
  sandbox: { client: new InstaVMSandboxClient() },
});
console.log(result.finalOutput);
