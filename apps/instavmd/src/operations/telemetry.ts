/** Core's telemetry port: every step is measured, and is a span of the trace that it belongs to, if there is one. */
import type { Telemetry } from '@instavm/core';
import type { Metrics } from './metrics.ts';
import { span } from './tracing.ts';

export const telemetry = (metrics: Pick<Metrics, 'steps'>): Telemetry => ({
  async timed(step, { sandboxId, source }, work) {
    const startedAt = performance.now();
    const done = (outcome: 'ok' | 'error'): void =>
      metrics.steps.observe({ step, source: source ?? '', outcome }, (performance.now() - startedAt) / 1000);
    try {
      const result = await span(step, { 'instavm.sandbox_id': sandboxId, 'instavm.source': source }, work);
      done('ok');
      return result;
    } catch (error) {
      done('error');
      throw error;
    }
  },
});
