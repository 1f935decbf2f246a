/** The announcement's example in both languages: `examples/` of the repository, without their first lines. */

export const TYPESCRIPT = `import { run } from '@openai/agents';
import { file, Manifest, SandboxAgent } from '@openai/agents/sandbox';
import { InstaVMSandboxClient } from 'instavm/openai-agents';

const agent = new SandboxAgent({
  name: 'Data analyst',
  model: 'gpt-4.1',
  instructions: 'Inspect sales.csv and summarize the outliers.',
  defaultManifest: new Manifest({
    entries: { 'sales.csv': file({ content: 'region,revenue\\nus,120\\nin,980\\nuk,140\\n' }) },
  }),
});

// The address and the key of the service come from INSTAVM_BASE_URL and INSTAVM_API_KEY.
const result = await run(agent, 'Analyze the dataset and explain what stands out.', {
  sandbox: { client: new InstaVMSandboxClient() },
});
console.log(result.finalOutput);
`;

export const PYTHON = `import asyncio

from agents import Runner
from agents.run import RunConfig
from agents.sandbox import Manifest, SandboxAgent, SandboxRunConfig
from agents.sandbox.entries import File

from instavm.integrations.openai_agents import InstaVMSandboxClient


async def main():
    agent = SandboxAgent(
        name="Data analyst",
        model="gpt-4.1",
        instructions="Inspect sales.csv and summarize the outliers.",
        default_manifest=Manifest(entries={"sales.csv": File(content=b"region,revenue\\nus,120\\nin,980\\nuk,140\\n")}),
    )

    result = await Runner.run(
        agent,
        "Analyze the dataset and explain what stands out.",
        run_config=RunConfig(
            # The address and the key come from INSTAVM_BASE_URL and INSTAVM_API_KEY.
            sandbox=SandboxRunConfig(client=InstaVMSandboxClient()),
        ),
    )
    print(result.final_output)


asyncio.run(main())
`;
