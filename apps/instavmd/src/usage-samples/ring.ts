/** The newest samples of one sandbox, in a block of memory that never grows. */

/** What a sample says, in the order in which it is kept. Bytes over the network are those since the sample before. */
export const FIELDS = [
  'seconds',
  'cpu',
  'memoryUsedBytes',
  'diskUsedBytes',
  'processes',
  'egressSentBytes',
  'egressReceivedBytes',
  'previewSentBytes',
  'previewReceivedBytes',
] as const;

export type Field = (typeof FIELDS)[number];
export type Sample = { readonly at: Date } & Readonly<Record<Field, number>>;

/** An hour of ten seconds each, which takes 14 KiB. */
export const SAMPLES_KEPT = 360;

export class Ring {
  /** Whole seconds since 1970 fit until 2106. */
  readonly #at = new Uint32Array(SAMPLES_KEPT);
  /** Exact to one part in ten million, which no plot shows. */
  readonly #values = new Float32Array(SAMPLES_KEPT * FIELDS.length);
  #next = 0;
  #count = 0;

  add(at: Date, sample: Readonly<Record<Field, number>>): void {
    this.#at[this.#next] = Math.floor(at.getTime() / 1_000);
    for (const [index, field] of FIELDS.entries()) this.#values[this.#next * FIELDS.length + index] = sample[field];
    this.#next = (this.#next + 1) % SAMPLES_KEPT;
    this.#count = Math.min(SAMPLES_KEPT, this.#count + 1);
  }

  get length(): number {
    return this.#count;
  }

  /** Oldest first. */
  samples(): Sample[] {
    const first = this.#next - this.#count + SAMPLES_KEPT;
    return Array.from({ length: this.#count }, (_, index) => this.#sample((first + index) % SAMPLES_KEPT));
  }

  #sample(position: number): Sample {
    const value = (field: number): number => this.#values[position * FIELDS.length + field] ?? 0;
    const values = Object.fromEntries(FIELDS.map((field, index) => [field, value(index)]));
    return { at: new Date((this.#at[position] ?? 0) * 1_000), ...(values as Record<Field, number>) };
  }
}
