/**
 * Tells the person at the terminal, or a program with `--json`, what setup does: a line when a step starts to work, what it
 * is busy with and for how long, and its result. A step that finds nothing to do stays silent.
 */

/** How often a long step says that it is still at work. */
const HEARTBEAT_MS = 5_000;

export type Progress = (message: string) => void;

type Event =
  | {
      readonly event: 'progress' | 'heartbeat' | 'done';
      readonly step: string;
      readonly message: string;
      readonly seconds: number;
    }
  | { readonly event: 'failed'; readonly step: string; readonly message: string; readonly seconds: number };

export class Reporter {
  readonly #json: boolean;

  constructor(options: { readonly json: boolean }) {
    this.#json = options.json;
  }

  /**
   * Runs one step. The first call of `progress` starts its lines; a step that never calls it had nothing to do.
   * @param work returns the one-line result
   */
  async step(name: string, work: (progress: Progress) => Promise<string>): Promise<void> {
    const startedAt = performance.now();
    const seconds = (): number => Math.round((performance.now() - startedAt) / 100) / 10;
    let current: string | undefined;
    const heartbeat = setInterval(() => {
      if (current) this.#emit({ event: 'heartbeat', step: name, message: current, seconds: seconds() });
    }, HEARTBEAT_MS);
    try {
      const result = await work((message) => {
        current = message;
        heartbeat.refresh();
        this.#emit({ event: 'progress', step: name, message, seconds: seconds() });
      });
      if (current || this.#json) this.#emit({ event: 'done', step: name, message: result, seconds: seconds() });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#emit({ event: 'failed', step: name, message, seconds: seconds() });
      throw error;
    } finally {
      clearInterval(heartbeat);
    }
  }

  #emit(event: Event): void {
    process.stdout.write(this.#json ? `${JSON.stringify(event)}\n` : `${humanLine(event)}\n`);
  }
}

function humanLine({ event, step, message, seconds }: Event): string {
  switch (event) {
    case 'progress':
      return `${step}: ${message} …`;
    case 'heartbeat':
      return `${step}: still ${message} (${Math.round(seconds)} s)`;
    case 'done':
      return `${step}: ${message} (${seconds} s)`;
    case 'failed':
      return `${step}: failed after ${seconds} s`;
  }
}
