/** Sandboxes: the list, one of them, and what can be done to it. */
import { keepPreviousData, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { request } from './http.ts';
import type { CreateSandbox, Metrics, Sandbox, SandboxState, Stats } from './types.ts';

/** The API has no events of sandboxes; asking again is what keeps the list live. */
const REFRESH_MS = 3_000;

export const sandboxPath = (id: string, rest = ''): string => `/v2/sandboxes/${encodeURIComponent(id)}${rest}`;

/** The server's own. */
export const MOST_LISTED = 1_000;

/** Newest first. @param ended also those that have */
export const useSandboxes = (ended: boolean) =>
  useQuery({
    queryKey: ['sandboxes', ended],
    queryFn: async () =>
      (await request<{ sandboxes: Sandbox[] }>('GET', '/v2/sandboxes', { query: { ended, limit: MOST_LISTED } }))
        .sandboxes,
    placeholderData: keepPreviousData,
    refetchInterval: REFRESH_MS,
  });

export const useSandbox = (id: string) =>
  useQuery({
    queryKey: ['sandbox', id],
    queryFn: () => request<Sandbox>('GET', sandboxPath(id)),
    refetchInterval: REFRESH_MS,
  });

export const useStats = (id: string, isRunning: boolean) =>
  useQuery({
    queryKey: ['stats', id],
    queryFn: () => request<Stats>('GET', sandboxPath(id, '/stats')),
    refetchInterval: 2_000,
    enabled: isRunning,
  });

/** Asking is what makes the server look more often. */
export const useMetrics = (id: string, isRunning: boolean) =>
  useQuery({
    queryKey: ['metrics', id],
    queryFn: () => request<Metrics>('GET', sandboxPath(id, '/metrics')),
    refetchInterval: isRunning ? 10_000 : false,
  });

export function useCreateSandbox() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (json: CreateSandbox) => request<Sandbox>('POST', '/v2/sandboxes', { json }),
    onSuccess: () => client.invalidateQueries({ queryKey: ['sandboxes'] }),
  });
}

export type Action = 'suspend' | 'resume' | 'delete';

export function useSandboxAction(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (action: Action) =>
      action === 'delete'
        ? request<Sandbox>('DELETE', sandboxPath(id))
        : request<Sandbox>('POST', sandboxPath(id, `/${action}`)),
    onSuccess: (sandbox) => {
      client.setQueryData(['sandbox', id], sandbox);
      return client.invalidateQueries({ queryKey: ['sandboxes'] });
    },
  });
}

type Verdict = { readonly isAllowed: true } | { readonly isAllowed: false; readonly reason: string };

const allowed: Verdict = { isAllowed: true };
const not = (reason: string): Verdict => ({ isAllowed: false, reason });

const PASSING = 'Wait until it has settled.';
const ENDED = 'It has ended, and nothing of it was kept.';

const WHAT_IS_KEPT: Readonly<Record<SandboxState, Verdict>> = {
  creating: not(PASSING),
  running: allowed,
  suspending: not(PASSING),
  suspended: allowed,
  resuming: not(PASSING),
  stopping: not('It is being ended.'),
  stopped: not(ENDED),
  failed: not(ENDED),
};

/** Which action makes sense in which state, and why not; the server decides in the end (packages/core/src/states.ts). */
const ACTIONS: Readonly<Record<Action | 'snapshot' | 'use', Readonly<Record<SandboxState, Verdict>>>> = {
  suspend: {
    creating: not(PASSING),
    running: allowed,
    suspending: not('It is being suspended already.'),
    suspended: not('It is suspended already.'),
    resuming: not(PASSING),
    stopping: not('It is being ended.'),
    stopped: not(ENDED),
    failed: not(ENDED),
  },
  resume: {
    creating: not('It is being started.'),
    running: not('It is running.'),
    suspending: not(PASSING),
    suspended: allowed,
    resuming: not('It is being resumed already.'),
    stopping: not('It is being ended.'),
    stopped: not(ENDED),
    failed: not(ENDED),
  },
  delete: {
    creating: allowed,
    running: allowed,
    suspending: allowed,
    suspended: allowed,
    resuming: allowed,
    stopping: not('It is being ended already.'),
    stopped: not('It has ended already.'),
    failed: not('It has ended already.'),
  },
  snapshot: WHAT_IS_KEPT,
  use: WHAT_IS_KEPT,
};

export const verdictOn = (action: keyof typeof ACTIONS, state: SandboxState): Verdict => ACTIONS[action][state];

export const hasEnded = ({ state }: Pick<Sandbox, 'state'>): boolean => state === 'stopped' || state === 'failed';
