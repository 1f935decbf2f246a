/** Releases of acquired resources: run once, last first, past failures, with the errors joined. */
export class CleanupStack {
  readonly #releases: (() => Promise<void> | void)[] = [];
  #running: Promise<void> | undefined;

  push(release: () => Promise<void> | void): void {
    this.#releases.push(release);
  }

  /** A second call joins the first. @throws AggregateError of every release that failed */
  run(): Promise<void> {
    this.#running ??= this.#runAll();
    return this.#running;
  }

  async #runAll(): Promise<void> {
    const errors: unknown[] = [];
    for (let release = this.#releases.pop(); release !== undefined; release = this.#releases.pop()) {
      try {
        await release();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'some resources could not be released');
  }
}
