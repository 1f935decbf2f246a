/** What killed programs of ours left half made on the disk, and no later work would replace: it goes when a daemon starts, and before a template is built. */
import { removeAbandonedDirectories, removeTemplateLeftovers } from '@instavm/vmm/host-files';
import type { Logger } from 'pino';
import { STAGED_BACKUP } from './backup/backup.ts';
import type { Config } from './config.ts';

/** Never fails: what cannot be removed costs room, and nothing else. */
export async function removeLeftovers(config: Config, logger: Logger): Promise<void> {
  try {
    const templates = await removeTemplateLeftovers(config.INSTAVM_CACHE_DIR);
    const backups = await removeAbandonedDirectories(config.INSTAVM_DATA_DIR, STAGED_BACKUP);
    if (templates + backups > 0) logger.info({ templates, backups }, 'removed what was left half made');
  } catch (err) {
    logger.warn({ err }, 'what was left half made could not be removed');
  }
}
