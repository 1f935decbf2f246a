import type { SandboxId } from '@instavm/core';
import { expect, it } from 'vitest';
import { Gateway, Resolver } from '../src/index.ts';
import { policyOf } from './support/rig.ts';

it('reads the rules of a policy once, for its sandboxes and however often somebody asks what it says', async () => {
  const gateway = new Gateway({
    ...{ resolver: new Resolver([]), registries: [], siteCidrs: [], forbiddenCidrs: [], proxy: undefined },
    ...{ maxConnections: 1, bytesPerSecond: Number.POSITIVE_INFINITY, defaultPolicy: policyOf() },
    ...{ record: () => {}, sent: () => {}, received: () => {}, log: { info: () => {}, warn: () => {} } },
  });
  let reads = 0;
  const policy = {
    ...policyOf(),
    get allowedCidrs() {
      reads += 1;
      return ['192.0.2.0/24'];
    },
  };
  const never = () => new Promise<never>(() => {});
  const links = ['a', 'b'].map((id) => gateway.serve(id as SandboxId, policy, never));
  const ask = () => gateway.explain(policy, { host: '192.0.2.1', isAddress: true, port: 22 });
  for (let round = 0; round < 3; round++) expect((await ask()).verdict.allowed).toBe(true);
  links[0]?.setPolicy(policyOf());
  links[0]?.setPolicy(policy);
  expect(reads).toBe(1);
  for (const link of links) link.close();
});
