/** The form of a new sandbox. */
import { type FormEvent, useState } from 'react';
import { useLocation } from 'wouter';
import { useCreateSandbox } from '../api/sandboxes.ts';
import type { CreateSandbox as Wanted } from '../api/types.ts';
import { Button } from '../components/button.tsx';
import { Dialog } from '../components/dialog.tsx';
import { Field } from '../components/field.tsx';
import { Failure } from '../components/notes.tsx';

const MEMORY_MB = [512, 1024, 2048, 4096, 8192];
const VCPUS = [1, 2, 4, 6, 8] as const;
const LIFETIMES = [
  [900, '15 minutes'],
  [3_600, '1 hour'],
  [28_800, '8 hours'],
  [86_400, '1 day'],
] as const;

type Props = { readonly snapshotId?: string; readonly onClose: () => void };

export function CreateSandbox({ snapshotId, onClose }: Props) {
  const create = useCreateSandbox();
  const [, go] = useLocation();
  const [name, setName] = useState('');
  const [memory, setMemory] = useState(512);
  const [vcpus, setVcpus] = useState<(typeof VCPUS)[number]>(2);
  const [lifetime, setLifetime] = useState<number>(3_600);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    const wanted: Wanted = {
      ttl_seconds: lifetime,
      auto_suspend: true,
      ...(name === '' ? {} : { metadata: { name } }),
      ...(snapshotId === undefined ? { memory_mb: memory, vcpu_count: vcpus } : { snapshot_id: snapshotId }),
    };
    create.mutate(wanted, { onSuccess: ({ id }) => go(`/sandboxes/${id}`) });
  };
  return (
    <Dialog title={snapshotId === undefined ? 'New sandbox' : 'New sandbox from the snapshot'} onClose={onClose}>
      <form onSubmit={submit}>
        <Field
          label="Name"
          hint="For you; it goes into the metadata."
          value={name}
          maxLength={60}
          onChange={({ target }) => setName(target.value)}
        />
        {snapshotId === undefined && (
          <>
            <Choice
              label="Memory"
              value={memory}
              onChange={setMemory}
              options={MEMORY_MB.map((mb) => [mb, `${mb} MiB`])}
            />
            <Choice
              label="vCPUs"
              value={vcpus}
              onChange={(value) => setVcpus(value as (typeof VCPUS)[number])}
              options={VCPUS.map((count) => [count, String(count)])}
            />
          </>
        )}
        <Choice label="Suspended after" value={lifetime} onChange={setLifetime} options={LIFETIMES} />
        {create.isError && <Failure error={create.error} />}
        <div className="actions">
          <Button type="submit" kind="primary" isBusy={create.isPending}>
            {create.isPending ? 'Making it …' : 'Make it'}
          </Button>
          <Button onClick={onClose}>Cancel</Button>
        </div>
      </form>
    </Dialog>
  );
}

type ChoiceProps = {
  readonly label: string;
  readonly value: number;
  readonly options: readonly (readonly [number, string])[];
  readonly onChange: (value: number) => void;
};

const Choice = ({ label, value, options, onChange }: ChoiceProps) => (
  <label className="field">
    <span>{label}</span>
    <select value={value} onChange={({ target }) => onChange(Number(target.value))}>
      {options.map(([number, text]) => (
        <option key={number} value={number}>
          {text}
        </option>
      ))}
    </select>
  </label>
);
