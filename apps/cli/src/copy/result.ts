/** What a copy is asked for, and what it tells when it is done. */
export type CopyOptions = {
  /** As whom in the sandbox; root when left out. */
  readonly user: string | undefined;
  readonly asDirectory: boolean;
  /** More than this is not taken from a sandbox. */
  readonly limitBytes: number;
};

export type Copied = {
  readonly from: string;
  readonly to: string;
  readonly entries: number;
  readonly sizeBytes: number;
  /** Links of a directory that lead out of it, and were not made. */
  readonly leftOut: readonly string[];
};
