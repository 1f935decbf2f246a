/** Credit and what it was spent on (contract §12). */
import { useQuery } from '@tanstack/react-query';
import { request } from './http.ts';
import type { Breakdown, CreditSummary, Forecast, Quotas } from './types.ts';

export const useSummary = () =>
  useQuery({
    queryKey: ['credit'],
    queryFn: () => request<CreditSummary>('GET', '/v1/credits/summary', { query: { period: 'current_month' } }),
    refetchInterval: 10_000,
  });

/** When the credit is gone, at the pace of the last seven days. */
export const useForecast = () =>
  useQuery({
    queryKey: ['forecast'],
    queryFn: () => request<Forecast>('GET', '/v1/credits/usage/forecasting'),
  });

/** How much the account may have, and what it has. */
export const useQuotas = () =>
  useQuery({
    queryKey: ['quotas'],
    queryFn: () => request<Quotas>('GET', '/v2/quotas'),
    refetchInterval: 10_000,
  });

export const useBreakdown = (days: number) =>
  useQuery({
    queryKey: ['usage', days],
    queryFn: () => request<Breakdown>('GET', '/v1/users/me/usage-breakdown', { query: { days } }),
  });
