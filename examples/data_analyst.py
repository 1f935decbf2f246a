"""The announcement's example: an agent looks for outliers in a file that lives in its own microVM."""

import asyncio

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
        default_manifest=Manifest(entries={"sales.csv": File(content=b"region,revenue\nus,120\nin,980\nuk,140\n")}),
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
