/** An account as any query that selects from `accounts` under its own name reads it. */
import type { AccountId } from '@instavm/core';

export type Account = {
  readonly id: AccountId;
  readonly email: string;
  readonly name: string;
  readonly createdAt: Date;
  /** The account of the first start. */
  readonly isAdministrator: boolean;
  readonly isVerified: boolean;
};

export const ACCOUNT_COLUMNS = [
  'accounts.id',
  'accounts.email',
  'accounts.name',
  'accounts.created_at',
  'accounts.is_administrator',
  'accounts.email_verified',
] as const;

type Row = {
  id: string;
  email: string;
  name: string;
  created_at: string;
  is_administrator: number;
  email_verified: number;
};

export const toAccount = ({ id, email, name, created_at, is_administrator, email_verified }: Row): Account => ({
  id: id as AccountId,
  email,
  name,
  createdAt: new Date(created_at),
  isAdministrator: is_administrator === 1,
  isVerified: email_verified === 1,
});
