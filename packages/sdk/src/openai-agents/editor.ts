/** The `apply_patch` tool's hands: V4A diffs on files of the sandbox. */
import { type ApplyPatchResult, applyDiff, type Editor } from '@openai/agents-core';
import type { Files } from '../files.ts';
import { fileError } from './errors.ts';

export type EditorFiles = {
  readonly files: Files;
  /** Where a path of the model is, for writing. @throws SandboxPathResolutionError */
  resolve(path: string): { readonly path: string; readonly within: readonly string[] };
};

export function createEditor({ files, resolve }: EditorFiles, user: string | undefined): Editor {
  const access = (path: string) => {
    const { path: absolute, within } = resolve(path);
    return { absolute, options: { within, user } };
  };
  const write = async (path: string, text: string): Promise<void> => {
    const { absolute, options } = access(path);
    await files.write(absolute, text, { ...options, parents: true }).catch(rethrow(path));
  };
  const remove = async (path: string): Promise<void> => {
    const { absolute, options } = access(path);
    await files.remove(absolute, options).catch(rethrow(path));
  };
  const done = (output: string): ApplyPatchResult => ({ status: 'completed', output });
  return {
    async createFile({ path, diff }) {
      await write(path, applyDiff('', diff, 'create'));
      return done(`Created ${path}`);
    },
    async updateFile({ path, diff, moveTo }) {
      const { absolute, options } = access(path);
      const current = await files.readText(absolute, options).catch(rethrow(path));
      const next = applyDiff(current, diff);
      if (moveTo === undefined || moveTo === path) {
        await write(path, next);
        return done(`Updated ${path}`);
      }
      await write(moveTo, next);
      await remove(path);
      return done(`Updated ${path} and moved it to ${moveTo}`);
    },
    async deleteFile({ path }) {
      await remove(path);
      return done(`Deleted ${path}`);
    },
  };
}

const rethrow =
  (path: string) =>
  (error: unknown): never => {
    throw fileError(error, path);
  };
