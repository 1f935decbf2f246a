/** What is left of the credit, and what each day cost. */
import type { Breakdown } from '../api/types.ts';
import { useBreakdown, useSummary } from '../api/usage.ts';
import { Failure, Loading } from '../components/notes.tsx';

const DAYS = 30;

export function UsagePage() {
  const summary = useSummary();
  const breakdown = useBreakdown(DAYS);
  return (
    <>
      <div className="heading">
        <h1>Credit and usage</h1>
      </div>
      {summary.isPending && <Loading />}
      {summary.isError && <Failure error={summary.error} />}
      {breakdown.isError && <Failure error={breakdown.error} />}
      {summary.data && !summary.data.enforced && (
        <p className="muted">This server counts, and stops nobody whose credit is used up.</p>
      )}
      {summary.data && (
        <dl className="figures">
          <Figure name="Left" value={dollars(summary.data.dollars.remaining)} />
          <Figure name="Spent this month" value={dollars(summary.data.dollars.used)} />
          <Figure name="Given" value={dollars(summary.data.dollars.allocated)} />
        </dl>
      )}
      {summary.data && breakdown.data && <Days breakdown={breakdown.data} />}
    </>
  );
}

const Figure = ({ name, value }: { name: string; value: string }) => (
  <div>
    <dt>{name}</dt>
    <dd>{value}</dd>
  </div>
);

function Days({ breakdown }: { breakdown: Breakdown }) {
  const { daily_breakdown: days, totals } = breakdown;
  const most = Math.max(...days.map(({ cost_dollars }) => cost_dollars), 0);
  return (
    <section aria-labelledby="days">
      <h2 id="days">The last {DAYS} days</h2>
      <p className="muted">
        {dollars(totals.cost_dollars)} for {totals.cpu_hours.toFixed(2)} vCPU hours and{' '}
        {totals.ram_gib_hours.toFixed(2)} GiB hours of memory.
      </p>
      <svg
        className="bars"
        viewBox={`0 0 ${days.length * 10} 100`}
        preserveAspectRatio="none"
        role="img"
        aria-label="Cost of each day; the table below has the numbers"
      >
        {days.map(({ date, cost_dollars }, index) => {
          const height = most === 0 ? 0 : (cost_dollars / most) * 96;
          return <rect key={date} x={index * 10 + 1} y={100 - height} width="8" height={height} />;
        })}
      </svg>
      <table className="list">
        <thead>
          <tr>
            <th>Day</th>
            <th>vCPU hours</th>
            <th>GiB hours</th>
            <th>Cost</th>
          </tr>
        </thead>
        <tbody>
          {days
            .filter(({ cost_dollars, cpu_hours }) => cost_dollars > 0 || cpu_hours > 0)
            .map((day) => (
              <tr key={day.date}>
                <td data-label="Day">{day.date}</td>
                <td data-label="vCPU hours">{day.cpu_hours.toFixed(2)}</td>
                <td data-label="GiB hours">{day.ram_gib_hours.toFixed(2)}</td>
                <td data-label="Cost">{dollars(day.cost_dollars)}</td>
              </tr>
            ))}
        </tbody>
      </table>
    </section>
  );
}

/** Cents, and what is less than one as it is. */
const dollars = (amount: number): string =>
  amount !== 0 && Math.abs(amount) < 0.01 ? `$${amount.toFixed(4)}` : `$${amount.toFixed(2)}`;
