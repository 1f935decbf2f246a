/** Credit and what it was spent on (contract §12). */
import { useQuery } from '@tanstack/react-query';
import { request } from './http.ts';

export type Summary = {
  readonly dollars: { readonly allocated: number; readonly used: number; readonly remaining: number };
};
export type Breakdown = {
  readonly totals: { readonly cost_dollars: number; readonly cpu_hours: number; readonly ram_gib_hours: number };
  readonly daily_breakdown: readonly {
    readonly date: string;
    readonly cost_dollars: number;
    readonly cpu_hours: number;
    readonly ram_gib_hours: number;
  }[];
};

export const useSummary = () =>
  useQuery({
    queryKey: ['credit'],
    queryFn: () => request<Summary>('GET', '/v1/credits/summary', { query: { period: 'current_month' } }),
    refetchInterval: 10_000,
  });

export const useBreakdown = (days: number) =>
  useQuery({
    queryKey: ['usage', days],
    queryFn: () => request<Breakdown>('GET', '/v1/users/me/usage-breakdown', { query: { days } }),
  });
